"""A source on the Hub: pinned to its commit, and found again by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from fluxconv.converters import Checkpoint, open_variant
from fluxconv.hub.rehearsal import RehearsalHub, running


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    with running(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture(scope="module")
def commit(hub: RehearsalHub, tiny_checkpoint: Checkpoint) -> str:
    """The tiny Flux as a repository of its own; the commit before somebody changed it."""
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("rehearsal/tiny-flux")
    api.upload_folder(repo_id="rehearsal/tiny-flux", folder_path=tiny_checkpoint.root)
    found = str(api.model_info("rehearsal/tiny-flux").sha)
    api.upload_file(
        repo_id="rehearsal/tiny-flux",
        path_in_repo="transformer/config.json",
        path_or_fileobj=b'{"_class_name": "SomethingElse"}',
    )
    return found


def _run(hub: RehearsalHub, home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "fluxconv.commands", *map(str, words), "--json"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def _answer(hub: RehearsalHub, home: Path, *words: object) -> Any:
    done = _run(hub, home, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_from_hub_to_hub_at_one_commit(hub: RehearsalHub, commit: str, tmp_path: Path) -> None:
    """Quantize a repository at a commit, validate against that commit, publish with its name."""
    home, out = tmp_path / "home", tmp_path / "out"
    source = ("rehearsal/tiny-flux", "--revision", commit)
    made = _answer(hub, home, "quantize", *source, "--backend", "gguf-q8_0", "-o", out)
    (variant,) = made["variants"]
    manifest = open_variant(variant["path"]).manifest
    assert (manifest.source.id, manifest.source.revision) == ("rehearsal/tiny-flux", commit)
    assert manifest.name == "tiny-flux-gguf-q8_0"

    checked = _answer(hub, home, "validate", variant["path"], "--steps", 2)
    assert checked["reports"][0]["verdict"]["passed"]
    assert checked["reports"][0]["reference_revision"] == commit

    pushed = _answer(hub, home, "push", variant["path"], "--namespace", "rehearsal")
    (repository,) = pushed["repositories"]
    api = HfApi(endpoint=hub.url, token=hub.token)
    card = Path(api.hf_hub_download(repository["name"], "README.md", local_dir=tmp_path / "card"))
    metadata = yaml.safe_load(card.read_text().split("---\n")[1])
    assert metadata["base_model"] == "rehearsal/tiny-flux"
    assert metadata["base_model_relation"] == "quantized"
    assert commit in card.read_text()


def test_a_local_copy_can_name_its_repository(
    hub: RehearsalHub, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    words = ("quantize", tiny_checkpoint.root, "--backend", "gguf-q8_0", "-o", tmp_path)
    (made,) = _answer(hub, tmp_path, *words, "--source-id", "somebody/Fine-Tune")["variants"]
    _answer(hub, tmp_path, "card", made["path"], "--no-validate")
    card = Path(made["path"], "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "somebody/Fine-Tune"
    refused = _run(hub, tmp_path, *words, "--source-id", "not a repository")
    assert refused.returncode == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["rehearsal/no-such-model"], 5, "not found"),
        (["rehearsal/tiny-flux", "--revision", "no-such-branch"], 5, "rehearsal/tiny-flux"),
        (["rehearsal/tiny-flux"], 3, "SomethingElse"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_sentence(
    words: list[str], code: int, said: str, hub: RehearsalHub, commit: str, tmp_path: Path
) -> None:
    done = _run(hub, tmp_path, "plan", *words, "--backend", "bnb-nf4")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert hub.token not in done.stdout + done.stderr


def test_a_hub_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    words = ["plan", "somebody/model", "--backend", "bnb-nf4"]
    done = subprocess.run(
        [sys.executable, "-m", "fluxconv.commands", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5
    assert "cannot be reached" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
