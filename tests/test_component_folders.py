"""Component folders in all the forms that the libraries save, and none that disagree in itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic
import torch
from safetensors.torch import load_file, save_file

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.errors import MalformedFile, NotACheckpoint

T5 = "text_encoder_2/model.safetensors"
CONFIG = {"double": 1, "single": 1, "heads": 2, "joint": 64, "pooled": 32}


@pytest.fixture
def copy(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "in" / "tiny-flux"))


@pytest.mark.parametrize("beside", [True, False])
def test_t5_may_name_its_embedding_twice_or_otherwise(
    beside: bool, copy: Path, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    weights = load_file(copy / T5)
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"].clone()
    if not beside:
        del weights["shared.weight"]
    save_file(weights, copy / T5, metadata={"format": "pt"})
    (made,) = quantize(open_checkpoint(copy), ["bnb-nf4"], tmp_path)
    assert made.manifest.files == tiny_variants["bnb-nf4"].manifest.files


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32", "fp8"])
def test_shards_hold_what_one_file_holds(dtype: str, tmp_path: Path) -> None:
    config = synthetic.transformer_config(**CONFIG)
    synthetic.write_transformer(tmp_path / "one", config, dtype=dtype)
    shards = synthetic.write_transformer(tmp_path / "many", config, dtype=dtype, shard_size="200KB")
    assert len(shards) > 2
    one, many = (
        open_checkpoint(tmp_path / name / "transformer").components["transformer"]
        for name in ("one", "many")
    )
    stored = load_file(tmp_path / "one/transformer/diffusion_pytorch_model.safetensors")
    for name in one.shapes:
        want = stored[name].to(torch.bfloat16) if dtype == "fp8" else stored[name]
        assert torch.equal(one.read(name), want), name
        assert torch.equal(many.read(name), want), name


def test_float8_in_a_folder_gives_the_variant_of_its_bf16_values(tmp_path: Path) -> None:
    config = synthetic.transformer_config(**CONFIG)
    synthetic.write_transformer(tmp_path / "fp8", config, dtype="fp8")
    wide = shutil.copytree(tmp_path / "fp8", tmp_path / "bf16")
    file = wide / "transformer/diffusion_pytorch_model.safetensors"
    save_file({name: w.to(torch.bfloat16) for name, w in load_file(file).items()}, file)
    made = [
        quantize(
            open_checkpoint(tmp_path / name / "transformer"), ["bnb-nf4"], tmp_path / "o" / name
        )
        for name in ("fp8", "bf16")
    ]
    assert made[0][0].manifest.files == made[1][0].manifest.files


def _sharded(folder: Path) -> Path:
    synthetic.write_transformer(folder, synthetic.transformer_config(**CONFIG), shard_size="200KB")
    return folder / "transformer"


def _edit_index(folder: Path, edit: Callable[[dict[str, str]], None]) -> None:
    (file,) = folder.glob("*.index.json")
    index = json.loads(file.read_text())
    edit(index["weight_map"])
    file.write_text(json.dumps(index))


def _placed_elsewhere(folder: Path) -> None:
    def edit(placed: dict[str, str]) -> None:
        first, *_, last = sorted(set(placed.values()))
        name = next(name for name, file in placed.items() if file == last)
        placed[name] = first

    _edit_index(folder, edit)


def _invented(folder: Path) -> None:
    _edit_index(folder, lambda placed: placed.update(x=next(iter(placed.values()))))


def _not_indexed(folder: Path) -> None:
    _edit_index(folder, lambda placed: placed.pop("proj_out.bias") and None)


def _stray_shard(folder: Path) -> None:
    stray = "diffusion_pytorch_model-00009-of-00009.safetensors"
    save_file({"x": torch.zeros(1)}, folder / stray)


def _backslash(folder: Path) -> None:
    _edit_index(folder, lambda placed: placed.update({"proj_out.bias": "..\\x.safetensors"}))


def _absolute(folder: Path) -> None:
    _edit_index(folder, lambda placed: placed.update({"proj_out.bias": "/etc/x.safetensors"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_placed_elsewhere, "which the index places there"),
        (_invented, "lacks 'x', which the index places there"),
        (_not_indexed, "holds 'proj_out.bias', which the index does not place there"),
        (_stray_shard, "00009-of-00009.safetensors: is a shard that the index"),
        (_backslash, "beside it"),
        (_absolute, "beside it"),
    ],
)
def test_an_index_that_disagrees_with_the_shards_is_refused(
    damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    folder = _sharded(tmp_path)
    open_checkpoint(folder)
    damage(folder)
    with pytest.raises(MalformedFile) as caught:
        open_checkpoint(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_diffusers_takes_the_shards_where_one_file_is_there_too(tmp_path: Path) -> None:
    folder = _sharded(tmp_path)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    opened = open_checkpoint(folder).components["transformer"]
    assert len(opened.headers) > 1


def test_a_carried_part_in_pickles_alone_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert not any(name.endswith(".bin") for name in open_checkpoint(copy).carried_files())
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(NotACheckpoint, match=r"diffusion_pytorch_model\.bin is a pickle"):
        open_checkpoint(copy)
