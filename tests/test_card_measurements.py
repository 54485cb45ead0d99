"""What a card shows of a report: what was measured, all of it alike in one table, and no more."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from reported import PROMPT, copied, made_up, reported

from fluxconv.cards import merge_blind_tests, write_card
from fluxconv.commands.main import run
from fluxconv.converters import Variant
from fluxconv.converters.errors import BadInput
from fluxconv.validators.blind_test import BlindResult, BlindTest
from fluxconv.validators.results import ComponentExecution

BACKENDS = ("bnb-nf4", "torchao-int8", "gguf-q8_0")


@pytest.fixture
def variants(tiny_variants: dict[str, Variant], tmp_path: Path) -> dict[str, Variant]:
    """The three variants with a passed report each."""
    return {name: reported(copied(tiny_variants[name], tmp_path)) for name in BACKENDS}


def rows_of(text: str, heading: str) -> dict[str, dict[str, str]]:
    """The table under a heading: its rows by their first cell, each by the table's header."""
    part = text.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def row_of(rows: dict[str, dict[str, str]], label: str) -> dict[str, str]:
    (found,) = [row for name, row in rows.items() if label in name]
    return found


def test_tables_hold_every_variant_and_only_measured_numbers(
    variants: dict[str, Variant], tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    bare = copied(tiny_variants["gguf-q8_0"], tmp_path / "bare")
    text = write_card(
        variants["bnb-nf4"], siblings=[variants["torchao-int8"], bare], repository="me/nf4"
    ).read_text()
    sizes = rows_of(text, "## Measured")
    nf4, gguf = row_of(sizes, "`bnb-nf4`"), row_of(sizes, "`gguf-q8_0`")
    assert nf4["Weight error, transformer"] == nf4["Weight error, T5"] == "1.23 %"
    assert nf4["Verdict"] == "passed"
    assert gguf["Weight error, T5"] == "–" and gguf["Verdict"] == "not validated"
    assert "https://huggingface.co/me/tiny-flux-torchao-int8" in text
    outputs = rows_of(text, "### What comes out")
    assert row_of(outputs, "`bnb-nf4`") | {"Variant": ""} == {
        "Variant": "",
        "Text error": "4.56 %",
        "Step error": "2.57 %",
        "PSNR": "31.2 dB",
        "SSIM": "0.957",
        "MS-SSIM": "0.977",
        "FLIP": "0.088",
    }
    assert not any("gguf" in name for name in outputs)  # it has no report
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<table>") == 3


def test_noise_floor_stands_beside_what_it_is_the_floor_of(variants: dict[str, Variant]) -> None:
    text = write_card(variants["torchao-int8"]).read_text()
    outputs = rows_of(text, "### What comes out")
    again, other = row_of(outputs, "drawn again"), row_of(outputs, "float32")
    assert again["PSNR"] == "∞ (equal)" and again["Step error"] == "–"
    assert other["PSNR"] == "45.5 dB" and other["Step error"] == "0.321 %"
    assert "noise floor" in text
    plain = write_card(reported(variants["torchao-int8"], noise_floor=None)).read_text()
    assert "noise floor" not in plain and "drawn again" not in plain


def test_memory_and_time_are_shown_with_the_machine_and_the_source(
    variants: dict[str, Variant],
) -> None:
    variant = variants["torchao-int8"]
    text = write_card(variant).read_text()
    rows = rows_of(text, "### Memory and time")
    assert list(rows) == ["**`torchao-int8`** (this one)", "*the source*"]  # offloading did not run
    assert row_of(rows, "torchao-int8")["One picture"] == "3.25 s"
    assert row_of(rows, "the source")["One picture"] == "2.75 s"
    assert "On A Processor, 2 cores, 16.0 GB of memory, Linux; 64 x 64 pixels, 2 steps" in text
    (plain, *_) = made_up(variant).performance
    compiled = plain.model_copy(update={"mode": "compile", "compile_seconds": 123.4})
    reported(variant, performance=(plain, compiled))
    rows = rows_of(write_card(variant).read_text(), "### Memory and time")
    assert row_of(rows, ", compile")["Compiling"] == "123 s"
    assert "### Memory and time" not in write_card(reported(variant, performance=())).read_text()


def test_a_decoded_run_does_not_pass_for_the_librarys(variants: dict[str, Variant]) -> None:
    variant = variants["bnb-nf4"]
    (plain, *_) = made_up(variant).performance
    decoded = {"transformer": ComponentExecution(mode="decoded", why="it needs a GPU")}
    reported(variant, performance=(plain.model_copy(update={"execution": decoded}),))
    text = write_card(variant).read_text()
    assert row_of(rows_of(text, "### Memory and time"), "(this one), decoded")
    assert "say nothing of how its own library runs it" in text


def test_figures_measured_otherwise_stand_apart(variants: dict[str, Variant]) -> None:
    machine = made_up(variants["bnb-nf4"]).machine.model_copy(update={"processor": "Another"})
    reported(variants["bnb-nf4"], machine=machine)
    text = write_card(variants["torchao-int8"], siblings=list(variants.values())).read_text()
    assert "`bnb-nf4`" in str(rows_of(text, "### What comes out"))
    assert "`bnb-nf4`" not in str(rows_of(text, "### Memory and time"))
    assert "because otherwise measured: bnb-nf4." in text


def test_layers_that_were_not_reached_leave_no_empty_column(variants: dict[str, Variant]) -> None:
    variant = reported(variants["torchao-int8"], text_encoder=None, steps=None, noise_floor=None)
    outputs = rows_of(write_card(variant).read_text(), "### What comes out")
    assert set(row_of(outputs, "torchao-int8")) == {"Variant", "PSNR", "SSIM", "MS-SSIM", "FLIP"}
    reported(variant, text_encoder=None, steps=None, pictures=None, noise_floor=None)
    assert "### What comes out" not in write_card(variant).read_text()


# Blind tests -------------------------------------------------------------------------------------


def blind_test(variant: Variant, file: Path, *, right: int = 14, rounds: int = 20) -> Path:
    """A result as the page of the variant's report saves it."""
    sha256 = made_up(variant).manifest_sha256
    result = BlindResult(variant=variant.name, manifest_sha256=sha256, rounds=rounds, right=right)
    test = BlindTest(
        page_version=1,
        date=datetime(2026, 1, 2, tzinfo=UTC),
        reference="tiny-flux",
        mode="pairs",
        planned=rounds,
        rounds=rounds,
        right=right,
        prompts=(PROMPT,),
        results=(result,),
    )
    file.write_text(test.model_dump_json())
    return file


def test_blind_test_stands_in_the_card_and_stays(
    variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = variants["torchao-int8"]
    merge_blind_tests([blind_test(variant, tmp_path / "a.json")], list(variants.values()))
    text = write_card(variant).read_text()
    row = row_of(rows_of(text, "### Blind test"), "torchao-int8")
    assert (row["Rounds"], row["Right"], row["By guessing"]) == ("20", "14 (70 %)", "50 %")
    assert row["95 % interval"] == "48 % to 85 %"
    assert "no difference could be shown" in text
    other = blind_test(variant, tmp_path / "b.json", right=20)
    for _ in range(2):  # the same file twice is the same game
        merge_blind_tests([other], [variant])
    text = write_card(variant).read_text()
    row = row_of(rows_of(text, "### Blind test"), "torchao-int8")
    assert (row["Results"], row["Rounds"], row["Right"]) == ("2", "40", "34 (85 %)")
    assert "the difference can be seen" in text
    assert "Blind test" in write_card(variants["bnb-nf4"], siblings=[variant]).read_text()


def test_blind_test_of_another_variant_or_state_is_refused(
    variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant, other = variants["torchao-int8"], variants["bnb-nf4"]
    file = blind_test(variant, tmp_path / "a.json")
    with pytest.raises(BadInput, match=f"is a blind test of {variant.name}"):
        merge_blind_tests([file], [other])
    merge_blind_tests([file], [variant])
    place = variant.root / "fluxconv.json"
    place.write_text(place.read_text() + "\n")
    with pytest.raises(BadInput, match="another state"):
        merge_blind_tests([file], [variant])
    assert "Blind test" not in write_card(reported(variant)).read_text()  # void with its manifest


@pytest.mark.parametrize("content", ["", "{}", "\0", '{"kind": "fluxconv-blind-test"}'])
def test_what_is_no_blind_test_is_refused_and_nothing_kept(
    variants: dict[str, Variant], tmp_path: Path, content: str
) -> None:
    variant = variants["torchao-int8"]
    (tmp_path / "bad.json").write_text(content)
    good = blind_test(variant, tmp_path / "good.json")
    with pytest.raises(BadInput, match=r"bad\.json"):
        merge_blind_tests([good, tmp_path / "bad.json"], [variant])
    assert not (variant.root / "blind-test.json").exists()


def test_command_merges_a_blind_test(
    variants: dict[str, Variant], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variant = variants["torchao-int8"]
    file = str(blind_test(variant, tmp_path / "a.json"))
    assert run(["card", str(variant.root), "--blind-test", file]) == 0
    assert "### Blind test" in (variant.root / "README.md").read_text()
    assert run(["card", str(variant.root)]) == 0
    assert "### Blind test" in (variant.root / "README.md").read_text()
    assert run(["card", str(variant.root), "--blind-test", file, "--no-validate"]) == 2
    assert run(["card", str(variants["bnb-nf4"].root), "--blind-test", file]) == 3
    assert "Traceback" not in capsys.readouterr().err
