"""Of all that is published, a download takes what was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import USER, api_of
from published import published
from reported import copied, made_up, reported

from fluxconv.commands.main import run
from fluxconv.converters import Variant
from fluxconv.converters.errors import (
    HubError,
    NotAVariant,
    NotEnoughMemory,
    OutputExists,
    UsageError,
)
from fluxconv.converters.variant import hash_file
from fluxconv.hub import download
from fluxconv.hub.choosing import Fit
from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.hub.targets import Target, parse_target
from fluxconv.hub.verifying import verify_published

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")

#: Each with the error of its steps and the memory at the peak that its report tells of.
MADE = {
    "torchao-int8": (0.01, 400_000_000),
    "fp8-layerwise": (0.02, 300_000_000),
    "torchao-fp8": (0.05, 200_000_000),
    # Too narrow for diffusers' GGUF loader, so never what fits.
    "gguf-q8_0": (0.001, 1_000),
    "gguf-q4_k_s": (0.001, 1_000),
}
SHARED = f"{USER}/tiny-flux-GGUF"


@pytest.fixture(scope="module")
def published_hub(
    tiny_variants: dict[str, Variant], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RehearsalHub, str, dict[str, Variant]]]:
    """A Hub with five variants, two in one GGUF repository, and the slug of their collection."""
    folder = tmp_path_factory.mktemp("made")
    variants = {name: copied(tiny_variants[name], folder) for name in MADE}
    for name, (error, peak) in MADE.items():
        report = made_up(variants[name])
        assert report.steps is not None
        performance = report.performance[0].model_copy(update={"memory_peak": peak})
        steps = report.steps.model_copy(update={"relative_rms": error})
        reported(variants[name], performance=(performance,), steps=steps)
    with running(tmp_path_factory.mktemp("hub")) as hub:
        api = api_of(hub)
        alone = [published(api, variants[name]) for name in list(MADE)[:3]]
        published(api, variants["gguf-q8_0"], variants["gguf-q4_k_s"])
        slug = api.create_collection("Tiny").slug
        for repository in (*alone, SHARED):
            api.add_collection_item(slug, repository, "model")
        yield hub, slug, variants


HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("me/x", Target("me/x")),
        ("https://huggingface.co/me/x", Target("me/x", hub=HUB)),
        ("https://huggingface.co/me/x/tree/main", Target("me/x", hub=HUB)),
        ("me/x-GGUF/x-Q8_0.gguf", Target("me/x-GGUF", "x-Q8_0.gguf")),
        ("https://hf.co/me/x/blob/main/a/x-Q8_0.gguf", Target("me/x", "a/x-Q8_0.gguf", HUB)),
        ("https://hf.co/me/x/resolve/main/x%20y.gguf", Target("me/x", "x y.gguf", HUB)),
        (f"me/tiny-{'a' * 24}", Target(f"me/tiny-{'a' * 24}")),
        (f"https://hf.co/collections/me/tiny-{'a' * 24}", Target(f"me/tiny-{'a' * 24}", hub=HUB)),
    ],
)
def test_every_way_to_name_it(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text", ["x", "me/x/y", "me/../x.gguf", "me/x/../../y.gguf", "https://hf.co/"]
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_target(text)


def test_a_collection_comes_whole(
    published_hub: tuple[RehearsalHub, str, dict[str, Variant]], tmp_path: Path
) -> None:
    hub, slug, variants = published_hub
    places = download(slug, tmp_path, endpoint=hub.url, token=hub.token)
    assert {place.name for place in places} == {each.name for each in variants.values()}


@pytest.mark.parametrize(
    ("memory", "taken"),
    [(None, "torchao-int8"), (400_000_000, "torchao-int8"), (399_999_999, "fp8-layerwise"),
     (250_000_000, "torchao-fp8")],
)  # fmt: skip
def test_the_best_that_fits_is_taken_and_nothing_else(
    published_hub: tuple[RehearsalHub, str, dict[str, Variant]],
    tmp_path: Path,
    memory: int | None,
    taken: str,
) -> None:
    hub, slug, variants = published_hub
    fit = Fit(memory, "cpu")
    (place,) = download(slug, tmp_path, fit=fit, endpoint=hub.url, token=hub.token)
    assert place.name == variants[taken].name
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_where_nothing_fits_it_says_what_is_lacking(
    published_hub: tuple[RehearsalHub, str, dict[str, Variant]], tmp_path: Path
) -> None:
    hub, slug, _ = published_hub
    with pytest.raises(NotEnoughMemory, match="Nothing fits"):
        download(slug, tmp_path, fit=Fit(1_000_000, "cpu"), endpoint=hub.url, token=hub.token)
    assert not list(tmp_path.iterdir())


def test_one_type_of_a_shared_repository(
    published_hub: tuple[RehearsalHub, str, dict[str, Variant]], tmp_path: Path
) -> None:
    hub, _, variants = published_hub
    for wanted, name in (("Q4_K_S", "gguf-q4_k_s"), ("gguf-q8_0", "gguf-q8_0")):
        (place,) = download(SHARED, tmp_path, only=[wanted], endpoint=hub.url, token=hub.token)
        assert place.name == variants[name].name
    with pytest.raises(UsageError, match="Q4_0"):
        download(SHARED, tmp_path, only=["Q4_0"], endpoint=hub.url, token=hub.token)


def test_a_single_file_is_checked_kept_and_never_overwritten(
    published_hub: tuple[RehearsalHub, str, dict[str, Variant]], tmp_path: Path
) -> None:
    hub, _, variants = published_hub
    file = variants["gguf-q4_k_s"].manifest.components["transformer"].files[0]
    about = {"endpoint": hub.url, "token": hub.token}
    partial = tmp_path / f".{file}.partial"
    partial.mkdir()
    whole = (variants["gguf-q4_k_s"].root / file).read_bytes()
    (partial / file).write_bytes(whole[:100_000])
    (place,) = download(f"{SHARED}/{file}", tmp_path, **about)  # type: ignore[arg-type]
    assert hash_file(place) == variants["gguf-q4_k_s"].manifest.files[file]
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert download(f"{SHARED}/{file}", tmp_path, **about) == (place,)  # type: ignore[arg-type]
    place.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        download(f"{SHARED}/{file}", tmp_path, **about)  # type: ignore[arg-type]
    assert place.read_bytes() == b"mine"
    with pytest.raises(NotAVariant, match=r"tiny-flux-Q4_K_S\.gguf"):
        download(f"{SHARED}/tiny-flux-Q4_K_M.gguf", tmp_path, **about)  # type: ignore[arg-type]


def test_command_chooses_and_says_why(
    published_hub: tuple[RehearsalHub, str, dict[str, Variant]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub, slug, variants = published_hub
    monkeypatch.setenv("HF_TOKEN", hub.token)
    command = ["download", slug, "-o", str(tmp_path), "--endpoint", hub.url]
    assert run([*command, "--vram", "0.3GB", "--device", "cpu", "--json"]) == 0
    (place,) = json.loads(capsys.readouterr().out)["variants"]
    assert Path(place).name == variants["fp8-layerwise"].name
    assert run([*command, "--vram", "1MB", "--device", "cpu"]) == 4
    assert run([*command, "--vram", "much"]) == 2
    assert run([*command, "--prefer", "size"]) == 2


@pytest.mark.parametrize(
    "hostile",
    [
        {"num_layers": 10**9},
        {"num_layers": "many"},
        {"num_attention_heads": 10**30},
        {"x": "y" * 99},
    ],
    ids=["layers", "words", "heads", "whatever"],
)
def test_hostile_configs_are_judged_and_not_obeyed(
    variant: Variant, hub: RehearsalHub, tmp_path: Path, hostile: dict[str, object]
) -> None:
    place = variant.root / "transformer" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | hostile))
    manifest = json.loads((variant.root / "fluxconv.json").read_text())
    manifest["files"]["transformer/config.json"] = hash_file(place).model_dump()
    (variant.root / "fluxconv.json").write_text(json.dumps(manifest))
    about = {"endpoint": hub.url, "token": hub.token}
    repository = published(api_of(hub), variant)
    if "x" not in hostile:
        with pytest.raises(HubError, match=r"config"):
            download(repository, tmp_path, fit=Fit(None, "cpu"), **about)  # type: ignore[arg-type]
        assert not list(tmp_path.glob(f"*{variant.name}*"))
    (found,) = verify_published(repository, **about)  # type: ignore[arg-type]
    assert found.is_well == ("x" in hostile)
