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
from single_files import packed, save, transformer_of

from fluxconv.converters import Checkpoint, open_variant
from fluxconv.converters.errors import CheckpointNotFound
from fluxconv.hub.needed import needed_files
from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.hub.sources import open_source


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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def single_file(hub: RehearsalHub, tiny_checkpoint: Checkpoint, tmp_path_factory: Any) -> str:
    """A repository with the tiny transformer in one file, among others; its commit."""
    folder = tmp_path_factory.mktemp("tiny-files")
    save(packed(transformer_of(tiny_checkpoint.root)), folder / "unet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    for name in ("other.safetensors", "flux.ckpt", "vae.pt"):
        (folder / name).write_bytes(b"not needed")
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("rehearsal/tiny-files")
    api.upload_folder(repo_id="rehearsal/tiny-files", folder_path=folder)
    return str(api.model_info("rehearsal/tiny-files").sha)


def _downloaded(home: Path, repository: str) -> set[str]:
    (snapshot,) = (
        home / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots"
    ).iterdir()
    return {p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_one_file_of_a_repository_with_a_base(
    hub: RehearsalHub, commit: str, single_file: str, tmp_path: Path
) -> None:
    """Only that file is downloaded, and of the base all but the transformer that it replaces."""
    home, base = tmp_path / "home", f"rehearsal/tiny-flux@{commit}"
    place = "rehearsal/tiny-files/unet/tiny-flux.safetensors"
    words = ("quantize", place, "--base", base, "--backend", "gguf-q8_0", "-o", tmp_path / "out")
    (made,) = _answer(hub, home, *words)["variants"]
    manifest = open_variant(made["path"]).manifest
    assert (manifest.source.id, manifest.source.revision) == ("rehearsal/tiny-files", single_file)
    assert manifest.name == "tiny-flux-gguf-q8_0"
    assert manifest.source.metadata == {"license": "mit"}
    assert _downloaded(home, "rehearsal/tiny-files") == {"README.md", "unet/tiny-flux.safetensors"}
    of_base = _downloaded(home, "rehearsal/tiny-flux")
    assert "text_encoder_2/model.safetensors" in of_base and "transformer/config.json" in of_base
    assert not any(name.startswith("transformer/") and "safetensors" in name for name in of_base)

    without = _run(hub, home, "validate", made["path"], "--steps", 1)
    assert without.returncode == 3 and "--base" in without.stderr
    checked = _answer(hub, home, "validate", made["path"], "--base", base, "--steps", 1)
    assert checked["reports"][0]["reference_difference"] is None
    assert checked["reports"][0]["reference_revision"] == single_file


@pytest.mark.parametrize(
    ("file", "code", "said"),
    [
        ("unet/no-such.safetensors", 3, "it has other.safetensors"),
        ("flux.ckpt", 3, "pickle"),
        ("flux-Q8_0.gguf", 3, "has no file flux-Q8_0.gguf"),
    ],
)
def test_a_file_of_a_repository_that_cannot_be_used_is_one_sentence(
    file: str, code: int, said: str, hub: RehearsalHub, single_file: str, tmp_path: Path
) -> None:
    done = _run(hub, tmp_path, "plan", f"rehearsal/tiny-files/{file}", "--backend", "bnb-nf4")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_only_what_a_checkpoint_needs_is_taken_of_a_repository() -> None:
    shards = [f"diffusion_pytorch_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    needed = {
        "model_index.json",
        "README.md",
        "LICENSE.md",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer_2/spiece.model",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors.index.json",
        "text_encoder_2/model-00001-of-00002.safetensors",
        "text_encoder_2/model-00002-of-00002.safetensors",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        *(f"transformer/{name}" for name in shards),
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    others = {
        "flux1-dev.safetensors",
        "ae.safetensors",
        "dev_grid.jpg",
        "../secret.json",
        "text_encoder/pytorch_model.bin",
        "text_encoder/flax_model.msgpack",
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.fp16.safetensors",
        "transformer/onnx/model.onnx",
        "transformer/diffusion_pytorch_model.bf16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }
    assert set(needed_files(sorted(needed | others))) == needed
    without = needed_files(sorted(needed | others), without="transformer")
    assert needed - set(without) == {
        name for name in needed if name.startswith("transformer/diffusion_pytorch_model")
    }
    lone = {"config.json", "README.md", "diffusion_pytorch_model.safetensors"}
    assert set(needed_files(sorted(lone | {"x.safetensors"}))) == lone
    assert needed_files(["x.safetensors", "config.json"]) == []


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


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("somebody/model", "somebody/model: no such folder here, and the Hub cannot be reached"),
        ("some/model/x.gguf", "some/model/x.gguf: no such file here, and the Hub cannot be"),
    ],
)
def test_a_hub_that_does_not_answer_is_one_sentence(source: str, said: str, tmp_path: Path) -> None:
    """The name may have been meant for a path on this machine."""
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    words = ["plan", source, "--backend", "bnb-nf4"]
    done = subprocess.run(
        [sys.executable, "-m", "fluxconv.commands", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["folder/nothere.gguf", "folder/nothere.safetensors"])
def test_a_file_that_is_not_there_is_not_sought_on_the_hub(name: str) -> None:
    with pytest.raises(CheckpointNotFound, match=f"^{name}: no such file here"):
        open_source(name)
