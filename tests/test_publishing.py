"""Publishing and downloading against the rehearsal Hub, with the real client."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from card_code import run_card_code
from huggingface_hub import HfApi
from PIL import Image, ImageChops
from reported import copied, reported

from fluxconv.cards import metadata_problems
from fluxconv.cards.readme import END, parse
from fluxconv.converters import Variant, open_variant
from fluxconv.converters.errors import (
    BadInput,
    CheckFailed,
    HubError,
    HubRefused,
    HubUnreachable,
    MissingLicence,
    NotAVariant,
    OutputExists,
    UsageError,
)
from fluxconv.converters.variant import hash_file
from fluxconv.hub import PushResult, download, push, session
from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.validators import require_passed

BACKENDS = ("bnb-nf4", "torchao-int8", "gguf-q8_0")
USER = "rehearsal"
TITLE = "Tiny Flux, quantized"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    """A rehearsal Hub for the whole module; tests use repositories of their own in it."""
    with running(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_account_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def api(hub: RehearsalHub) -> HfApi:
    """The real client, as the owner."""
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def variant(
    tiny_variants: dict[str, Variant], tmp_path: Path, request: pytest.FixtureRequest
) -> Variant:
    """A validated variant whose name, and so whose repository, belongs to the test alone."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-80:]
    return reported(copied(tiny_variants["torchao-int8"], tmp_path / "made", name=name))


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


def commits(api: HfApi, repository: str) -> int:
    return len(api.list_repo_commits(repository))


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
        "images/00-0-source.png",
        "images/00-0-variant.png",
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
        assert names == {p.relative_to(source.root) for p in source.root.rglob("*") if p.is_file()}
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
    with pytest.raises(NotAVariant, match="differs"):
        download(f"{USER}/tiny-flux-torchao-int8", tmp_path, endpoint=hub.url)


def test_dry_run_says_all_and_does_nothing(variant: Variant, api: HfApi, hub: RehearsalHub) -> None:
    before = sorted(variant.root.rglob("*"))
    result = push(
        [variant], USER, collection="Dry", token=hub.token, endpoint=hub.url, dry_run=True
    )
    (repository,) = result.repositories
    assert result.dry_run and repository.is_new and repository.commit is None
    assert {"README.md", "fluxconv.json", "report.json"} <= set(repository.uploaded)
    assert repository.uploaded_bytes > 1_000_000
    assert result.collection is not None and result.collection.slug is None
    assert not api.repo_exists(repository.name)
    assert sorted(variant.root.rglob("*")) == before


@pytest.mark.parametrize("how", ["none", "failed", "stale"])
def test_unvalidated_variant_is_refused(
    variant: Variant, api: HfApi, hub: RehearsalHub, how: str
) -> None:
    if how == "none":
        (variant.root / "report.json").unlink()
    else:
        reported(variant, passed=how != "failed", manifest_sha256="0" * 64)
    with pytest.raises(CheckFailed):
        push([variant], USER, token=hub.token, endpoint=hub.url)
    assert not api.repo_exists(f"{USER}/{variant.name}")


def test_unvalidated_variant_can_be_pushed_on_demand_and_says_so(
    variant: Variant, api: HfApi, hub: RehearsalHub, tmp_path: Path
) -> None:
    push([variant], USER, token=hub.token, endpoint=hub.url, validate_required=False)
    files = api.list_repo_files(f"{USER}/{variant.name}")
    assert "report.json" not in files and not [f for f in files if f.startswith("images/")]
    place = api.hf_hub_download(f"{USER}/{variant.name}", "README.md", local_dir=tmp_path / "d")
    assert "**Not validated.**" in Path(place).read_text()
    push([variant], USER, token=hub.token, endpoint=hub.url)
    assert "report.json" in api.list_repo_files(f"{USER}/{variant.name}")
    # And back again: what the report brought goes.
    push([variant], USER, token=hub.token, endpoint=hub.url, validate_required=False)
    assert set(api.list_repo_files(f"{USER}/{variant.name}")) == set(files)


def test_changed_variant_is_refused(variant: Variant, api: HfApi, hub: RehearsalHub) -> None:
    config = variant.root / "transformer" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(NotAVariant, match=r"config\.json"):
        push([variant], USER, token=hub.token, endpoint=hub.url)
    assert not api.repo_exists(f"{USER}/{variant.name}")


def test_variant_without_licence_is_refused(
    tiny_variants: dict[str, Variant], hub: RehearsalHub, tmp_path: Path
) -> None:
    made = reported(copied(tiny_variants["bnb-nf4"], tmp_path, metadata={}))
    with pytest.raises(MissingLicence):
        push([made], USER, token=hub.token, endpoint=hub.url)


def test_symbolic_link_is_refused(variant: Variant, hub: RehearsalHub, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    sheet = variant.root / "images" / "contact-sheet.png"
    shutil.copy(sheet, secret)
    sheet.unlink()
    sheet.symlink_to(secret)
    with pytest.raises(NotAVariant, match="symbolic link"):
        push([variant], USER, token=hub.token, endpoint=hub.url)


def test_report_cannot_name_files_elsewhere(variant: Variant, hub: RehearsalHub) -> None:
    report = require_passed(variant)
    assert report.pictures is not None
    picture = report.pictures.pictures[0].model_copy(update={"source": "../../secret"})
    pictures = report.pictures.model_copy(update={"pictures": (picture,)})
    reported(variant, pictures=pictures)
    with pytest.raises(BadInput, match="outside images"):
        push([variant], USER, token=hub.token, endpoint=hub.url)


def test_foreign_repository_is_left_alone(variant: Variant, api: HfApi, hub: RehearsalHub) -> None:
    name = f"{USER}/{variant.name}"
    api.create_repo(name)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="model.txt", repo_id=name)
    head = api.model_info(name).sha
    with pytest.raises(HubRefused, match=r"model\.txt"):
        push([variant], USER, token=hub.token, endpoint=hub.url)
    assert api.model_info(name).sha == head


def test_words_written_on_the_hub_are_kept(variant: Variant, api: HfApi, hub: RehearsalHub) -> None:
    name = f"{USER}/{variant.name}"
    api.create_repo(name)
    api.upload_file(
        path_or_fileobj=b"---\nlanguage: en\n---\nMy words.", path_in_repo="README.md", repo_id=name
    )
    first = push([variant], USER, token=hub.token, endpoint=hub.url).repositories[0]
    assert "README.md" in first.uploaded and not first.is_new
    text = (variant.root / "README.md").read_text()
    assert "My words." in text and "language: en" in text and END in text
    again = push([variant], USER, token=hub.token, endpoint=hub.url).repositories[0]
    assert again.commit == first.commit


def test_new_version_replaces_the_old_one_in_one_commit(
    variant: Variant, api: HfApi, hub: RehearsalHub
) -> None:
    name = f"{USER}/{variant.name}"
    push([variant], USER, token=hub.token, endpoint=hub.url)
    api.upload_file(path_or_fileobj=b"theirs", path_in_repo="samples.txt", repo_id=name)
    manifest = json.loads((variant.root / "fluxconv.json").read_text())
    del manifest["files"]["tokenizer/merges.txt"]
    (variant.root / "fluxconv.json").write_text(json.dumps(manifest))
    changed = reported(open_variant(variant.root))
    before = commits(api, name)
    done = push([changed], USER, token=hub.token, endpoint=hub.url).repositories[0]
    assert done.deleted == ("tokenizer/merges.txt",)
    assert "samples.txt" in api.list_repo_files(name) and commits(api, name) == before + 1
    assert not any(path.endswith(".safetensors") for path in done.uploaded)


def test_types_of_one_checkpoint_share_a_repository(
    tiny_variants: dict[str, Variant], api: HfApi, hub: RehearsalHub, tmp_path: Path
) -> None:
    made = reported(copied(tiny_variants["gguf-q8_0"], tmp_path, checkpoint="shared"))
    push([made], USER, token=hub.token, endpoint=hub.url)
    # As an earlier push of another type would have left it.
    name = f"{USER}/shared-GGUF"
    for file in ("fluxconv.json", "report.json"):
        text = (made.root / file).read_text()
        api.upload_file(
            path_or_fileobj=text.encode(), path_in_repo=f"fluxconv/Q4_0/{file}", repo_id=name
        )
    push([made], USER, token=hub.token, endpoint=hub.url)
    readme = Path(api.hf_hub_download(name, "README.md", local_dir=tmp_path / "d")).read_text()
    assert readme.count(".gguf` |") == 4
    manifest = json.loads((made.root / "fluxconv.json").read_text())
    manifest["files"]["model_index.json"]["sha256"] = "0" * 64
    api.upload_file(
        path_or_fileobj=json.dumps(manifest).encode(),
        path_in_repo="fluxconv/Q4_0/fluxconv.json",
        repo_id=name,
    )
    with pytest.raises(BadInput, match=r"model_index\.json"):
        push([made], USER, token=hub.token, endpoint=hub.url)


def test_one_variant_twice_is_refused(variant: Variant, hub: RehearsalHub) -> None:
    with pytest.raises(UsageError, match="both"):
        push([variant, replace(variant)], USER, token=hub.token, endpoint=hub.url)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("none", "hf auth login"),
        ("wrong", "did not accept the token"),
        ("read", "may only read"),
        ("visitor", "not a member"),
    ],
)
def test_token_is_checked_first(
    variant: Variant, api: HfApi, hub: RehearsalHub, kind: str, words: str
) -> None:
    tokens = {"none": None, "wrong": "hf_" + "x" * 34, **hub.tokens}
    with pytest.raises(HubRefused, match=words) as caught:
        push([variant], USER, token=tokens[kind], endpoint=hub.url)
    assert "hf_" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (variant.root / "README.md").exists()
    assert not api.repo_exists(f"{USER}/{variant.name}")


def test_token_and_endpoint_come_from_the_environment(
    variant: Variant, hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    result = push([variant], USER, private=True)
    assert result.endpoint == hub.url
    (place,) = download(f"{USER}/{variant.name}", tmp_path)
    assert open_variant(place).name == variant.name
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubRefused, match="not found, or private"):
        download(f"{USER}/{variant.name}", tmp_path / "other")


def test_dead_endpoint_is_one_sentence(variant: Variant, tmp_path: Path) -> None:
    for endpoint in ("http://127.0.0.1:1", "http://no-such-host.invalid", "not an address"):
        with pytest.raises(HubUnreachable) as caught:
            push([variant], USER, token="hf_secretsecret", endpoint=endpoint)
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(HubUnreachable):
        download(f"{USER}/{variant.name}", tmp_path, endpoint="http://127.0.0.1:1")


def test_silent_endpoint_is_given_up(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(HubUnreachable, match="in time"):
            push(
                [variant],
                USER,
                token="hf_secretsecret",
                endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}",
            )
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", HubError),
        (
            b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n"
            b"X-Error-Message: not with Bearer hf_secretsecret, hf_secretsecret\r\n\r\n",
            HubRefused,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", HubError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", HubError),
        (b"", HubUnreachable),
    ],
)
def test_broken_server_is_one_sentence(
    variant: Variant, answer: bytes, error: type[HubError]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(error) as caught:
            push([variant], USER, token="hf_secretsecret", endpoint=address)
        thread.join()
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_corrupted_content_is_never_downloaded(
    variant: Variant, api: HfApi, hub: RehearsalHub, tmp_path: Path
) -> None:
    name = f"{USER}/{variant.name}"
    push([variant], USER, token=hub.token, endpoint=hub.url)
    # Changed by a later commit: the tree is right, the manifest is not.
    config = b'{"_class_name": "Other"}'
    api.upload_file(
        path_or_fileobj=config, path_in_repo="scheduler/scheduler_config.json", repo_id=name
    )
    with pytest.raises(HubError, match=r"scheduler_config\.json"):
        download(name, tmp_path / "a", endpoint=hub.url)
    push([variant], USER, token=hub.token, endpoint=hub.url)
    download(name, tmp_path / "b", endpoint=hub.url)
    # Rotten in storage: the Hub itself does not know.
    sha256 = variant.manifest.files["vae/diffusion_pytorch_model.safetensors"].sha256
    (blob,) = (path for path in hub.directory.glob("blobs/*/*") if sha256 in path.name)
    whole = blob.read_bytes()
    blob.chmod(0o644)
    try:
        blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(HubError, match="not what the Hub says"):
            download(name, tmp_path / "c", endpoint=hub.url)
    finally:
        blob.write_bytes(whole)
    for folder in ("a", "c"):
        assert not (tmp_path / folder).exists() or not list((tmp_path / folder).iterdir())


@pytest.mark.parametrize(
    "hostile",
    ["../escape.json", "/etc/passwd", "a/../../b", "a\\b"],
    ids=["up", "absolute", "inside", "backslash"],
)
def test_hostile_file_names_are_refused(
    variant: Variant, api: HfApi, hub: RehearsalHub, tmp_path: Path, hostile: str
) -> None:
    name = f"{USER}/{variant.name}"
    api.create_repo(name)
    manifest: dict[str, Any] = json.loads((variant.root / "fluxconv.json").read_text())
    manifest["files"] = {hostile: {"size": 1, "sha256": "0" * 64}}
    api.upload_file(
        path_or_fileobj=json.dumps(manifest).encode(), path_in_repo="fluxconv.json", repo_id=name
    )
    with pytest.raises(HubError, match="outside the variant"):
        download(name, tmp_path / "out", endpoint=hub.url)
    manifest["name"] = "../up"
    api.upload_file(
        path_or_fileobj=json.dumps(manifest).encode(), path_in_repo="fluxconv.json", repo_id=name
    )
    with pytest.raises(HubError, match="variant"):
        download(name, tmp_path / "out", endpoint=hub.url)
    assert not (tmp_path / "out").exists() and not (tmp_path / "up").exists()


def test_download_does_not_replace_what_is_there(
    variant: Variant, hub: RehearsalHub, tmp_path: Path
) -> None:
    push([variant], USER, token=hub.token, endpoint=hub.url)
    (tmp_path / variant.name).mkdir()
    (tmp_path / variant.name / "mine.txt").write_text("mine")
    with pytest.raises(OutputExists):
        download(f"{USER}/{variant.name}", tmp_path, endpoint=hub.url)
    assert [p.name for p in (tmp_path / variant.name).iterdir()] == ["mine.txt"]


def test_repository_without_a_variant_is_named(
    api: HfApi, hub: RehearsalHub, tmp_path: Path
) -> None:
    api.create_repo(f"{USER}/empty")
    with pytest.raises(NotAVariant, match="empty"):
        download(f"{USER}/empty", tmp_path, endpoint=hub.url)
    with pytest.raises(HubRefused, match="nothing-here"):
        download(f"{USER}/nothing-here", tmp_path, endpoint=hub.url)
    for wrong in ("no-slash", "../..", "a/b/c", "https://huggingface.co/"):
        with pytest.raises(UsageError):
            download(wrong, tmp_path, endpoint=hub.url)


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
