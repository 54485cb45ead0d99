"""Sources that old versions of the libraries saved give the config that today's would save."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_equal_to_library import assert_same_component

from fluxconv.converters import Checkpoint, open_checkpoint, quantize
from fluxconv.converters.architectures import ARCHITECTURES, FLUX
from fluxconv.converters.backends import get_backend

#: What FLUX.1-dev's own configs have and today's do not, and the fields that they lack.
OLD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "transformer": (
        {"_diffusers_version": "0.30.0.dev0", "_name_or_path": "../checkpoints/flux/transformer"},
        ("out_channels",),  # nor the rotary axes, but the tiny one's are not the defaults
    ),
    "text_encoder_2": (
        {
            "_name_or_path": "google/t5-v1_1-xxl",
            "dense_act_fn": "gelu_new",
            "is_gated_act": True,
            "output_past": True,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.43.3",
            "use_cache": True,
        },
        ("dtype",),
    ),
}


@pytest.mark.parametrize("part", list(ARCHITECTURES))
def test_config_of_an_old_source(part: str, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = tmp_path / part
    shutil.copytree(tiny_checkpoint.components[part].path, source)
    config = json.loads((source / "config.json").read_text())
    new, gone = OLD[part]
    kept = {key: value for key, value in config.items() if key not in gone}
    (source / "config.json").write_text(json.dumps(kept | new))
    backend = get_backend("torchao-int8")
    (variant,) = quantize(open_checkpoint(source), [backend], tmp_path / "out")
    architecture = ARCHITECTURES[part]
    model = backend.quantize_with_library(source, architecture, (), "cpu")
    backend.save_with_library(model, tmp_path / "library", architecture)
    assert_same_component(variant.root / part, tmp_path / "library")


def test_config_fields_are_those_of_the_library() -> None:
    from diffusers import FluxTransformer2DModel

    arguments = inspect.signature(FluxTransformer2DModel.__init__).parameters
    defaults = {name: each.default for name, each in arguments.items() if name != "self"}
    assert json.loads(json.dumps(defaults)) == dict(FLUX.config_fields)
