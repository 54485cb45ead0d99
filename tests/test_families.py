"""Which FLUX.1 a transformer is, and its config, are told from its tensors alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch

from fluxconv.converters.architectures import FLUX
from fluxconv.converters.architectures.families import family_of
from fluxconv.converters.architectures.recognition import recognise
from fluxconv.converters.safetensors_header import read_header

#: What the Hub's `transformer/config.json` of each says beside the default.
REAL: dict[str, dict[str, Any]] = {
    "dev": {},
    "schnell": {"guidance_embeds": False},
    "fill": {"in_channels": 384, "out_channels": 64},
    "depth-canny": {"in_channels": 128, "out_channels": 64},
}


def _shapes(config: dict[str, Any], prefix: str = "") -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes in both layouts, by diffusers' class and by `bfl_names.json`."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    plain = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    packed = {entry.name: entry.shape for entry in synthetic.bfl_entries(plain, prefix)}
    return {"diffusers": plain, "bfl": packed}


@pytest.mark.parametrize("family", REAL)
@pytest.mark.parametrize("layout", ["diffusers", "bfl"])
def test_full_size_models_are_told_apart(family: str, layout: str) -> None:
    config = synthetic.transformer_config() | REAL[family]
    found = recognise(_shapes(config)[layout])
    assert found is not None
    assert family_of(found.config).name == family_of(config).name == family
    for key, value in config.items():
        assert found.config[key] == (list(value) if isinstance(value, tuple) else value), key
    assert found.config["out_channels"] == config.get("out_channels")


def test_the_prefix_of_community_checkpoints_is_seen(tmp_path: Path) -> None:
    config = synthetic.transformer_config(double=1, single=2, heads=2, joint=64, pooled=32)
    options = {"layout": "bfl", "prefix": "model.diffusion_model.", "dtype": "fp8"}
    (file,) = synthetic.write_transformer(tmp_path, config, **options)
    shapes = {tensor.name: tensor.shape for tensor in read_header(file).tensors}
    found = recognise(shapes)
    assert found is not None and found.prefix == "model.diffusion_model."
    assert {name: (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
            for name, parts in found.parts.items()} == shapes  # fmt: skip


def test_what_shapes_cannot_tell_is_left_open() -> None:
    """FLUX.1's axes of rotary embedding belong to heads of width 128."""
    config = synthetic.transformer_config(double=1, single=1, heads=4, head_dim=64)
    found = recognise(_shapes(config)["bfl"])
    assert found is not None
    assert "axes_dims_rope" not in found.config
    assert len(FLUX.specs(found.config)) == len(FLUX.specs(config))


def test_another_geometry_is_another_family() -> None:
    family = family_of(synthetic.transformer_config(in_channels=16))
    assert (family.name, family.in_channels, family.guidance) == ("other", 16, True)


@pytest.mark.parametrize("missing", ["img_in.weight", "final_layer.linear.weight"])
def test_a_file_without_a_landmark_is_not_recognised(missing: str) -> None:
    config = synthetic.transformer_config(double=1, single=1, heads=2)
    shapes = _shapes(config)["bfl"]
    assert recognise(shapes) is not None
    del shapes[missing]
    assert recognise(shapes) is None
