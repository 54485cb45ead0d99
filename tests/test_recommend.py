"""Advice names what fits and runs, in the order asked for, and says what its figures are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reported import copied, made_up, reported

from fluxconv.commands.main import run
from fluxconv.commands.recommend import amount
from fluxconv.converters import Variant
from fluxconv.converters.backends import all_backends
from fluxconv.converters.errors import UsageError
from fluxconv.validators.candidates import from_variant, of_flux_dev, rules
from fluxconv.validators.recommendation import Suggestion, recommend

GB = 1_000_000_000
GIB = 1 << 30


def names(suggestions: tuple[Suggestion, ...]) -> list[str]:
    return [each.candidate.backend.name for each in suggestions]


def steps_of(variant: Variant, error: float) -> Variant:
    """The variant with a passed report of this step error."""
    steps = made_up(variant).steps
    assert steps
    return reported(variant, steps=steps.model_copy(update={"relative_rms": error}))


@pytest.fixture
def variants(tiny_variants: dict[str, Variant], tmp_path: Path) -> dict[str, Variant]:
    """Two variants that a CPU runs; the smaller one is, by its report, the closer one."""
    errors = {"quanto-int4": 0.01, "torchao-int8": 0.02}
    return {n: steps_of(copied(tiny_variants[n], tmp_path), e) for n, e in errors.items()}


def asked(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["recommend", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# Without variants --------------------------------------------------------------------------------


def test_every_backend_is_known() -> None:
    for device in ("cuda", "cpu"):
        assert {each.backend.name for each in of_flux_dev(device)} == set(all_backends())


@pytest.mark.parametrize("device", ["cuda", "cpu", "mps"])
@pytest.mark.parametrize("prefer", ["quality", "speed", "size"])
def test_what_is_recommended_fits_and_runs(device: Any, prefer: Any) -> None:
    candidates = of_flux_dev(device)
    found = recommend(candidates, device, 24 * GB, prefer)
    assert found.suggestions and found.advice.startswith(
        f"Take {found.suggestions[0].candidate.name}"
    )
    for each in found.suggestions:
        assert each.way.memory <= 24 * GB
        assert each.candidate.cannot_run(device) is None
        assert device == "cuda" or each.way.mode.name == "plain"
    assert len(found.suggestions) + len(found.unfit) == len(candidates)
    assert all(each.why for each in (*found.suggestions, *found.unfit))


def test_more_memory_never_gives_a_worse_variant() -> None:
    bits = []
    for memory in (12, 16, 24, 32, 48):
        first = recommend(of_flux_dev("cuda"), "cuda", memory * GB).suggestions[0]
        assert first.way.mode.offload != "group"
        bits.append(first.candidate.bits)
    assert bits == sorted(bits) and bits[0] >= 4


def test_layer_by_layer_comes_last() -> None:
    found = recommend(of_flux_dev("cuda"), "cuda", 12 * GB).suggestions
    layered = [each.way.mode.offload == "group" for each in found]
    assert any(layered) and layered == sorted(layered)


def test_estimates_hold_against_the_guides_peaks() -> None:
    """No less than what the diffusers guide measured on FLUX.1-dev, and at most a sixth more."""
    known = {each.backend.name: each for each in of_flux_dev("cuda")}
    held = 0
    for backend, modes in rules()["published"].items():
        way = recommend([known[backend]], "cuda").suggestions[0].way
        if "peak" in modes["plain"]:
            assert way.mode.name == "plain"
            assert 1 <= way.memory / (modes["plain"]["peak"] * GIB) < 7 / 6, backend
            held += 1
    assert held == 10


def test_bitsandbytes_is_not_promised_to_offload_below_its_weights() -> None:
    nf4, int8 = (
        next(c for c in of_flux_dev("cuda") if c.backend.name == name)
        for name in ("bnb-nf4", "bnb-int8")
    )
    weights = sum(part.weights for part in nf4.parts)
    assert recommend([nf4], "cuda", weights - 1).suggestions == ()
    (offloaded,) = recommend([nf4], "cuda", 14 * GB).suggestions
    assert offloaded.way.mode.offload == "model"
    assert recommend([int8], "cuda", 20 * GB).suggestions == ()


def test_fp8_is_not_for_apples_gpus() -> None:
    found = recommend(of_flux_dev("mps"), "mps", 64 * GB)
    assert not any("fp8" in name for name in names(found.suggestions))
    why = {each.candidate.backend.name: each.why for each in found.unfit}
    assert "float8" in why["fp8-layerwise"] and "CUDA" in why["torchao-int4"]
    assert {"gguf-q4_k_m", "bnb-nf4"} <= set(names(found.suggestions))


def test_nothing_fits_says_what_would() -> None:
    found = recommend(of_flux_dev("cuda"), "cuda", 2 * GB)
    assert not found.suggestions
    (first, *_) = [each for each in found.unfit if each.least]
    assert first.least and first.least.mode.offload == "group"
    assert first.missing == first.least.memory - 2 * GB
    for words in ("Nothing fits in 2.00 GB", "--offload group", "GB more", "smaller pictures"):
        assert words in found.advice


def test_command_says_that_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked("--vram", "12GB", capsys=capsys)
    assert "Nothing of this was measured on FLUX.1-dev" in found["notes"][0]
    assert found["memory"] == 12 * GB and not found["recommended"][0]["memory_measured"]
    assert run(["recommend", "--vram", "12GB"]) == 0
    shown = capsys.readouterr().out
    assert "--all shows" in shown and found["advice"] in shown


# From variants and their reports -----------------------------------------------------------------


def test_reports_decide_where_there_are_some(
    variants: dict[str, Variant], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = asked(str(tmp_path), "--device", "cpu", capsys=capsys)
    first, second = found["recommended"]
    assert (first["backend"], second["backend"]) == ("quanto-int4", "torchao-int8")
    assert first["error"] == 0.01 and first["error_of"] == "its steps"
    assert first["memory_measured"] and first["seconds"] == 3.25 and first["seconds_measured"]
    assert found["notes"] == []
    place = str(variants["torchao-int8"].root)
    alone = asked(place, place, "--device", "cpu", capsys=capsys)
    assert [each["path"] for each in alone["recommended"]] == [place]


def test_without_reports_bits_decide(
    tiny_variants: dict[str, Variant], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torchao-int8", "quanto-int4", "bnb-nf4"):
        copied(tiny_variants[name], tmp_path)
    found = asked(str(tmp_path), capsys=capsys)
    assert [each["backend"] for each in found["recommended"]] == [
        "torchao-int8",
        "bnb-nf4",
        "quanto-int4",
    ]
    assert not any(each["memory_measured"] for each in found["recommended"])
    assert "Without a report" in found["notes"][0]


def test_failed_and_void_reports_are_not_relied_on(
    variants: dict[str, Variant], tmp_path: Path
) -> None:
    failed = reported(variants["quanto-int4"], passed=False)
    found = recommend([from_variant(failed, "cpu")], "cpu")
    assert "did not pass validation" in found.unfit[0].why
    assert found.advice.startswith("None of them")
    place = variants["torchao-int8"].root / "fluxconv.json"
    place.write_text(place.read_text() + "\n")
    assert from_variant(variants["torchao-int8"], "cpu").report is None


def test_a_decoded_run_does_not_count_as_the_librarys(variants: dict[str, Variant]) -> None:
    variant = variants["torchao-int8"]
    text = json.loads((variant.root / "report.json").read_text())
    for each in text["performance"][0]["execution"].values():
        each["mode"] = "decoded"
    (variant.root / "report.json").write_text(json.dumps(text))
    (only,) = recommend([from_variant(variant, "cpu")], "cpu").suggestions
    assert not only.way.memory_measured and only.way.seconds is None


def test_a_variant_that_its_library_cannot_run_here_is_not_recommended(
    tiny_variants: dict[str, Variant],
) -> None:
    found = recommend([from_variant(tiny_variants["bnb-nf4"], "cpu")], "cpu", 64 * GB)
    assert not found.suggestions and "GPU" in found.unfit[0].why


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("12GB", 12 * GB),
        ("12 gb", 12 * GB),
        ("11.5GiB", 23 * GIB // 2),
        ("800MB", 800_000_000),
        ("0.5TB", 500 * GB),
    ],
)
def test_amounts_of_memory(text: str, nbytes: int) -> None:
    assert amount(text) == nbytes


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("12", "no unit; give 12GB"),
        ("0GB", "no memory at all"),
        ("0", "no unit"),
        ("-3GB", "no amount"),
        ("lots", "no amount"),
        ("", "no amount"),
        ("nanGB", "no amount"),
        ("1e9GB", "no amount"),
        ("9" * 400 + "GB", "no amount"),
        ("12 GB of it", "no amount"),
    ],
)
def test_what_is_no_amount_of_memory_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        amount(text)


def test_bad_places_get_one_sentence(
    variants: dict[str, Variant], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (variants["torchao-int8"].root / "report.json").write_text("{")
    for place, what in {
        str(tmp_path / "empty"): "holds no variant",
        str(tmp_path / "nothing"): "no such folder",
        str(variants["torchao-int8"].root): "is not a report",
    }.items():
        assert run(["recommend", place]) == 3
        said = capsys.readouterr().err.strip()
        assert what in said and said.count("\n") == 0
    assert run(["recommend", "--vram", "12"]) == 2
