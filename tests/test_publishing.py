"""Variants published together: what is then on the Hub, comes back from it and draws."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from card_code import run_card_code
from hub_client import USER, commits
from huggingface_hub import HfApi
from PIL import Image, ImageChops

from fluxconv.cards import metadata_problems
from fluxconv.cards.readme import parse
from fluxconv.converters import Variant, open_variant
from fluxconv.converters.variant import hash_file
from fluxconv.hub import PushResult, download, push
from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.validators import require_passed
from fluxconv.validators.kept import FOLDER

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine")

BACKENDS = ("bnb-nf4", "torchao-int8", "gguf-q8_0")
ROLES = ("source", "variant", "flip")
TITLE = "Tiny Flux, quantized"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    """A rehearsal Hub of this module's own: what is in it is counted."""
    with running(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture(scope="module")
def published(
    hub: RehearsalHub,
    validated_variants: dict[str, Variant],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Variant], PushResult]:
    """All three variants, really validated, pushed together into a collection."""
    folder = tmp_path_factory.mktemp("published")
    made = {
        name: open_variant(shutil.copytree(validated_variants[name].root, folder / name))
        for name in BACKENDS
    }
    result = push(list(made.values()), USER, collection=TITLE, token=hub.token, endpoint=hub.url)
    return made, result


def test_three_repositories_and_a_collection(
    published: tuple[dict[str, Variant], PushResult], api: HfApi, hub: RehearsalHub
) -> None:
    _, result = published
    names = [f"{USER}/tiny-flux-{end}" for end in ("bnb-nf4", "torchao-int8", "GGUF")]
    assert [repository.name for repository in result.repositories] == names
    for repository in result.repositories:
        assert repository.is_new and repository.url == f"{hub.url}/{repository.name}"
        assert commits(api, repository.name) == 2  # the Hub's own first one, and ours
        assert repository.commit == api.model_info(repository.name).sha
    assert result.collection is not None and result.collection.slug is not None
    collection = api.get_collection(result.collection.slug)
    assert [item.item_id for item in collection.items] == names
    assert collection.title == TITLE and "tiny-flux" in (collection.description or "")
    assert all("Passed validation." in (item.note or "") for item in collection.items)
    assert collection.items[0].note != collection.items[1].note


def test_only_what_belongs_to_the_variant_is_published(
    published: tuple[dict[str, Variant], PushResult], api: HfApi
) -> None:
    variants, _ = published
    plain = set(api.list_repo_files(f"{USER}/tiny-flux-torchao-int8"))
    generated = {"README.md", "LICENSE.md", "NOTICE", ".gitattributes"}
    report = {
        "fluxconv.json",
        "report.json",
        "images/contact-sheet.png",
        *(f"images/{i:02d}-1-{role}.png" for i in (0, 1) for role in ROLES),
    }
    assert plain == {*variants["torchao-int8"].manifest.files, *report, *generated}
    shared = set(api.list_repo_files(f"{USER}/tiny-flux-GGUF"))
    inner = {f"fluxconv/Q8_0/{name}" for name in report}
    assert shared == {*variants["gguf-q8_0"].manifest.files, *inner, *generated}


def test_published_card_is_valid_and_names_its_repository(
    published: tuple[dict[str, Variant], PushResult], api: HfApi, tmp_path: Path
) -> None:
    for name in ("tiny-flux-torchao-int8", "tiny-flux-GGUF"):
        place = api.hf_hub_download(f"{USER}/{name}", "README.md", local_dir=tmp_path / name)
        text = Path(place).read_text()
        assert metadata_problems(parse(text, name).metadata) == ()
        files = api.list_repo_files(f"{USER}/{name}")
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
            assert picture in files
        for other in ("tiny-flux-bnb-nf4", "tiny-flux-GGUF"):
            assert f"/{USER}/{other})" in text or other == name
    assert api.model_info(f"{USER}/tiny-flux-GGUF").library_name == "gguf"


def test_the_same_push_again_changes_nothing(
    published: tuple[dict[str, Variant], PushResult], api: HfApi, hub: RehearsalHub
) -> None:
    variants, first = published
    again = push(list(variants.values()), USER, collection=TITLE, token=hub.token, endpoint=hub.url)
    for before, after in zip(first.repositories, again.repositories, strict=True):
        assert after.commit == before.commit and not after.is_new
        assert after.uploaded == () and set(after.skipped) == set(before.uploaded)
        assert commits(api, after.name) == 2
    assert first.collection is not None and again.collection is not None
    assert again.collection.slug == first.collection.slug
    assert again.collection.added == again.collection.updated == ()
    assert len(list(api.list_collections(owner=USER))) == 1


def test_download_gives_back_every_byte(
    published: tuple[dict[str, Variant], PushResult], hub: RehearsalHub, tmp_path: Path
) -> None:
    variants, result = published
    assert result.collection is not None and result.collection.url is not None
    places = download(result.collection.url, tmp_path, endpoint=hub.url)
    assert [place.name for place in places] == [v.name for v in variants.values()]
    for place, source in zip(places, variants.values(), strict=True):
        opened = open_variant(place)
        assert require_passed(opened) == require_passed(source)
        names = {p.relative_to(place) for p in place.rglob("*") if p.is_file()}
        kept = source.root / FOLDER  # what a validation keeps for the next one stays here
        there = {p for p in source.root.rglob("*") if p.is_file() and kept not in p.parents}
        assert names == {p.relative_to(source.root) for p in there}
        for name in names:
            # A GGUF card shows its pictures where they lie in the repository.
            if name != Path("README.md") or "gguf" not in source.name:
                assert hash_file(place / name) == hash_file(source.root / name), name
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    weights = places[1] / "transformer/diffusion_pytorch_model.safetensors"
    changed = weights.stat().st_mtime_ns
    assert download(result.collection.slug or "", tmp_path, endpoint=hub.url) == places
    assert weights.stat().st_mtime_ns == changed
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    download(f"{USER}/tiny-flux-torchao-int8", tmp_path, endpoint=hub.url)
    name = str(weights.relative_to(places[1]))
    assert hash_file(weights) == open_variant(places[1]).manifest.files[name]


def _draw_here(variant: Variant, place: Path) -> Path:
    """The same picture from the variant's own folder, as the publisher's machine draws it."""
    import torch

    from fluxconv.converters.load import load_variant

    settings = require_passed(variant).settings
    pipeline, _ = load_variant(variant, "cuda" if torch.cuda.is_available() else "cpu")
    picture = pipeline(
        settings.prompts[0],
        height=settings.height,
        width=settings.width,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        max_sequence_length=settings.max_sequence_length,
        generator=torch.Generator("cpu").manual_seed(settings.seeds[0]),
    ).images[0]
    picture.save(place)
    return place


@pytest.mark.parametrize("backend", ["torchao-int8", "bnb-nf4"])
def test_snippet_of_the_published_card_draws_the_same_picture(
    published: tuple[dict[str, Variant], PushResult],
    hub: RehearsalHub,
    tmp_path: Path,
    backend: str,
) -> None:
    if backend == "bnb-nf4":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("diffusers opens bitsandbytes checkpoints only where it finds a GPU")
    variants, _ = published
    drawn = run_card_code(f"{USER}/{variants[backend].name}", hub, tmp_path)
    expected = _draw_here(variants[backend], tmp_path / "expected.png")
    with Image.open(drawn) as first, Image.open(expected) as second:
        assert first.size == (64, 64)
        assert ImageChops.difference(first, second).getbbox() is None
