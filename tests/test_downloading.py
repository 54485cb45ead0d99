"""A download takes only what a variant's manifest vouches for, and replaces nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hub_client import USER
from huggingface_hub import HfApi

from fluxconv.converters import Variant
from fluxconv.converters.errors import HubError, HubRefused, NotAVariant, OutputExists, UsageError
from fluxconv.hub import download, push
from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine")


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
