"""One variant pushed to the Hub: what a push changes, and what it leaves as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_client import USER, commits
from huggingface_hub import HfApi
from reported import copied, reported

from fluxconv.cards.readme import END
from fluxconv.converters import Variant, open_variant
from fluxconv.converters.errors import BadInput, HubRefused
from fluxconv.hub import download, push
from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine")


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
