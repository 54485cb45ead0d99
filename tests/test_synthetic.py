"""Synthetic checkpoints hold the tensors of the real classes, the same in every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from safetensors.torch import load_file

from fluxconv.converters import open_checkpoint, plan


@pytest.fixture
def config() -> dict[str, Any]:
    return synthetic.transformer_config(
        double=2, single=1, heads=4, head_dim=64, joint=256, pooled=64, in_channels=16
    )


def test_one_file_and_shards_hold_the_same(config: dict[str, Any], tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    (whole,) = synthetic.write_transformer(tmp_path / "whole", config)
    shards = synthetic.write_transformer(tmp_path / "shards", config, shard_size="3MB")
    assert len(shards) > 2
    want = load_file(whole)
    for folder in ("whole", "shards"):
        opened = open_checkpoint(tmp_path / folder / "transformer")
        assert set(opened.components["transformer"].tensors) == set(want)
        model = FluxTransformer2DModel.from_pretrained(
            tmp_path / folder / "transformer", dtype=torch.bfloat16
        )
        state = model.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in want.items())


def test_bfl_layout_holds_the_same_under_its_own_names(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Held against our own table of names, which was written independently of the script's."""
    (diffusers_file,) = synthetic.write_transformer(tmp_path / "diffusers", config)
    (bfl_file,) = synthetic.write_transformer(tmp_path / "bfl", config, layout="bfl")
    source, packed = load_file(diffusers_file), load_file(bfl_file)
    (planned,) = plan(open_checkpoint(tmp_path / "diffusers" / "transformer"), ["gguf-q8_0"])
    targets = [tensor.target for tensor in planned.components[0].tensors]
    assert {target.name for target in targets} == set(packed)
    for target in targets:
        rows = torch.cat([source[part.tensor][part.start : part.stop] for part in target.slices])
        assert torch.equal(rows, packed[target.name]), target.name


def test_t5_opens(tmp_path: Path) -> None:
    from transformers import T5EncoderModel

    config = synthetic.t5_config(width=256, inner=512, layers=2, heads=4, vocabulary=1000)
    (file,) = synthetic.write_t5(tmp_path, config)
    assert open_checkpoint(file.parent).components["text_encoder_2"].nbytes > 0
    model = T5EncoderModel.from_pretrained(file.parent, dtype=torch.bfloat16)
    assert torch.equal(model.shared.weight, load_file(file)["shared.weight"])
