"""A pass split into parts makes the very bytes of one that was not, from whatever source."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_files import packed, save, transformer_of
from test_resuming import files_of

from fluxconv.converters import (
    Checkpoint,
    Variant,
    open_checkpoint,
    quantize,
    quantize_part,
    stream,
    tensor_data,
)
from fluxconv.converters.backends import Backend, get_backend
from fluxconv.converters.errors import BadWeight, UsageError
from fluxconv.converters.parts import split

#: One for each way in which weights are taken apart and put together: rows that stand alone, whole
#: weights, sizes that are known only when encoded, three weights as one, cast and no more.
WAYS = ("torchao-int8", "bnb-nf4", "bnb-nf4 twice", "gguf-q4_k_m", "fp8-layerwise")


def backends() -> list[Backend]:
    twice = {"double_quant": True}
    return [
        get_backend("bnb-nf4").configured(twice) if name == "bnb-nf4 twice" else get_backend(name)
        for name in WAYS
    ]


def in_parts(source: Checkpoint, chosen: list[Any], output: Path, count: int) -> None:
    """All parts, the last one first, and then the variants."""
    for index in reversed(range(count)):
        quantize_part(source, chosen, output, index, count)
    quantize(source, chosen, output)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every weight that is encoded, as it happens."""
    found: list[str] = []
    real = stream._jobs

    def noting(output: Any, weight: str, *rest: Any) -> Any:
        found.append(f"{output.plan.backend.label} {output.plan.component} {weight}")
        return real(output, weight, *rest)

    monkeypatch.setattr(stream, "_jobs", noting)
    return found


@pytest.mark.parametrize(
    "count", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 7))]
)
def test_every_backend_has_the_bytes_of_the_unsplit_run(
    count: int, tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    in_parts(tiny_checkpoint, list(tiny_variants), tmp_path, count)
    for variant in tiny_variants.values():
        assert files_of(tmp_path / variant.name) == files_of(variant.root)
    assert {path.name for path in tmp_path.iterdir()} == {v.name for v in tiny_variants.values()}


def _sharded(root: Path, place: Path) -> Path:
    from huggingface_hub import save_torch_state_dict

    folder = place / "tiny-flux"
    shutil.copytree(root, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    file.unlink()
    save_torch_state_dict(
        weights,
        file.parent,
        filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
        max_shard_size="500KB",
    )
    assert len(list(file.parent.glob("*.safetensors"))) > 3
    return folder


def _fused(root: Path, place: Path) -> Path:
    return save(packed(transformer_of(root)), place)


def _scaled(root: Path, place: Path) -> Path:
    """Float8 with a scale for each tensor, which safetensors stores far from its weight."""
    found: dict[str, torch.Tensor] = {}
    for name, weight in packed(transformer_of(root)).items():
        if weight.ndim == 2 and name.endswith(".weight"):
            scale = weight.float().abs().max() / 448
            found[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
            found[name.removesuffix("weight") + "scale_weight"] = scale.reshape(())
        else:
            found[name] = weight
    found["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return save(found, place)


def _gguf(root: Path, place: Path) -> Path:
    quantize(open_checkpoint(root / "transformer"), ["gguf-q8_0"], place / "made")
    (file,) = (place / "made").rglob("*.gguf")
    return file


def _variant(root: Path, place: Path) -> Path:
    (made,) = quantize(open_checkpoint(root), ["gguf-q6_k"], place)
    return made.root


SOURCES: dict[str, Callable[[Path, Path], Path]] = {
    "sharded folder": _sharded,
    "one file, fused": _fused,
    "one file, scaled": _scaled,
    "GGUF file": _gguf,
    "variant": _variant,
}


@pytest.mark.parametrize("layout", SOURCES)
def test_every_source_has_the_bytes_of_the_unsplit_run(
    layout: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = SOURCES[layout](tiny_checkpoint.root, tmp_path / "in")
    base = tiny_checkpoint.root if path.is_file() else None
    source = open_checkpoint(path, base=base, allow_requantize=True)
    quantize(source, backends(), tmp_path / "whole")
    whole = files_of(tmp_path / "whole")
    for count in (2, 7):
        in_parts(source, backends(), tmp_path / f"{count} parts", count)
        assert files_of(tmp_path / f"{count} parts") == whole


def test_making_the_variants_of_all_parts_encodes_nothing(
    tiny_checkpoint: Checkpoint, encoded: list[str], tmp_path: Path
) -> None:
    for index in range(3):
        quantize_part(tiny_checkpoint, backends(), tmp_path, index, 3)
    assert len(encoded) == len(set(encoded))
    encoded.clear()
    quantize(tiny_checkpoint, backends(), tmp_path)
    assert not encoded


def test_a_part_that_never_ran_is_done_by_who_makes_the_variants(
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    encoded: list[str],
    tmp_path: Path,
) -> None:
    quantize_part(tiny_checkpoint, ["gguf-q8_0"], tmp_path, 0, 3)
    quantize_part(tiny_checkpoint, ["gguf-q8_0"], tmp_path, 2, 3)
    before = set(encoded)
    encoded.clear()
    (made,) = quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path)
    assert encoded
    assert not before & set(encoded)
    assert files_of(made.root) == files_of(tiny_variants["gguf-q8_0"].root)


def test_a_part_reads_its_own_range(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def preadv(self, *arguments: Any) -> int:
            read.append(os.preadv(*arguments))
            return read[-1]

    monkeypatch.setattr(tensor_data, "os", Counting())
    total = sum(c.weight_bytes for c in tiny_checkpoint.components.values())
    shares = []
    for index in range(4):
        read.clear()
        part = quantize_part(tiny_checkpoint, ["torchao-int8", "fp8-layerwise"], tmp_path, index, 4)
        assert sum(read) == part.nbytes
        shares.append(part.nbytes)
    assert sum(shares) == total
    assert max(shares) < 1.2 * total / 4


@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
def test_parts_have_every_step_once(count: int, tiny_checkpoint: Checkpoint) -> None:
    components = list(tiny_checkpoint.components.values())
    parts = split(components, count)
    assert len(parts) == count
    for component in components:
        steps = [step for part in parts for step in part.get(component.name, ())]
        assert len(steps) == len(component.steps)
        assert {step.stored for step in steps} == {step.stored for step in component.steps}


def test_a_variant_that_is_there_is_left_alone(
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    encoded: list[str],
    tmp_path: Path,
) -> None:
    shutil.copytree(tiny_variants["bnb-nf4"].root, tmp_path / "tiny-flux-bnb-nf4")
    part = quantize_part(tiny_checkpoint, ["bnb-nf4"], tmp_path, 0, 2)
    assert part.weights == 0
    assert not encoded
    assert quantize_part(tiny_checkpoint, ["bnb-nf4"], tmp_path, 0, 2, overwrite=True).weights


def test_there_is_no_part_beyond_the_last(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="numbered 0 to 1"):
        quantize_part(tiny_checkpoint, ["bnb-nf4"], tmp_path, 2, 2)


def test_a_bad_weight_is_named_by_the_part_that_meets_it(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_checkpoint.root / "transformer", tmp_path / "transformer"))
    file = source / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    name = "proj_out.weight"
    weights[name][0, 0] = float("nan")
    save_file(weights, file)
    checkpoint = open_checkpoint(source)
    failed = []
    for index in range(3):
        try:
            quantize_part(checkpoint, ["gguf-q8_0"], tmp_path / "out", index, 3)
        except BadWeight as error:
            assert name in str(error)
            failed.append(index)
    assert len(failed) == 1
