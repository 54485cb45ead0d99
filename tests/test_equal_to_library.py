"""The streamed files are the ones the libraries themselves would have written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fluxconv.converters import Checkpoint, Variant, quantize
from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.backends import all_backends
from fluxconv.converters.safetensors_header import read_header

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# GGUF is no library's own format to save in; `test_gguf_files.py` holds it against gguf-py.
SAVED = [name for name, each in all_backends().items() if each.container == "safetensors"]
EVERY = [(name, part) for name in SAVED for part in ARCHITECTURES]


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_files_equal_save_pretrained(
    name: str,
    part: str,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path: Path,
) -> None:
    """Names, header, index, config and data are those of the library's own `save_pretrained`."""
    _require_library(name, part)
    variant, architecture = tiny_variants[name], ARCHITECTURES[part]
    folder = tiny_checkpoint.components[part].path
    model = variant.backend.quantize_with_library(folder, architecture, (), DEVICE)
    variant.backend.save_with_library(model, tmp_path, architecture)
    assert_same_component(variant.root / part, tmp_path)


def _require_library(name: str, part: str) -> None:
    """Skip, with the reason, where the library itself cannot quantize on this machine."""
    why = all_backends()[name].library_refuses(ARCHITECTURES[part], DEVICE)
    if why is not None:
        pytest.skip(why)


def assert_same_component(ours: Path, theirs: Path) -> None:
    """Two component folders hold the same files with the same contents."""
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    for file in theirs.glob("*.json"):
        want = json.loads(file.read_text())
        # diffusers records the folder of this machine that the source was read from; we do not.
        want.pop("_name_or_path", None)
        assert json.loads((ours / file.name).read_text()) == want, file.name
    for file in theirs.glob("*.safetensors"):
        want, have = read_header(file), read_header(ours / file.name)
        assert have.metadata == want.metadata
        assert [(t.name, t.dtype, t.shape, t.offset) for t in have.tensors] == [
            (t.name, t.dtype, t.shape, t.offset) for t in want.tensors
        ]
        data = (ours / file.name).read_bytes()[have.data_start :]
        assert data == file.read_bytes()[want.data_start :]


@pytest.mark.parametrize("name", ["torchao-int8", "torchao-fp8", "quanto-int8", "fp8-layerwise"])
def test_shards_and_index_equal_save_pretrained(
    name: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """diffusers' sharding rule, at a size that the tiny transformer reaches. (T5 is smaller than
    the size at which transformers begins to shard.)"""
    part = "transformer"
    _require_library(name, part)
    architecture = replace(ARCHITECTURES[part], max_shard_size="600KB")
    component = replace(tiny_checkpoint.components[part], architecture=architecture)
    checkpoint = replace(tiny_checkpoint, components={part: component})
    (variant,) = quantize(checkpoint, [name], tmp_path / "out", device=DEVICE)
    model = variant.backend.quantize_with_library(component.path, architecture, (), DEVICE)
    model.save_pretrained(tmp_path / "library", max_shard_size="600KB")
    assert len(list((tmp_path / "library").glob("*.safetensors"))) > 2
    assert_same_component(variant.root / part, tmp_path / "library")
