"""torchao's variants are torchao's own, under every option, and open in both libraries as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_equal_to_library import assert_same_component
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import (
    Int8WeightOnlyConfig,
    PerGroup,
    quantize_,
)

from fluxconv.converters import Checkpoint, Variant, quantize
from fluxconv.converters.architectures import ARCHITECTURES, T5_ENCODER
from fluxconv.converters.backends import Backend, SourceSlice, Target, get_backend
from fluxconv.converters.backends.torchao_8bit import PIECE, EightBit
from fluxconv.converters.errors import BadWeight, UsageError
from fluxconv.converters.load import model_class
from fluxconv.converters.stored import decode_component

EIGHT_BIT = ("torchao-int8", "torchao-fp8")
GROUPS_OF_32 = {"granularity": "group", "group_size": 32}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"granularity": "tensor"},
    GROUPS_OF_32,
    {"granularity": "group"},
    {"skip": ("^proj_out$", r"block\.1\..*SelfAttention")},
    {**GROUPS_OF_32, "skip": ("norm1", "wo$")},
)
WHOLE = 3072, 256


def planned(backend: Backend, shape: tuple[int, ...], name: str = "a.b.weight") -> Any:
    """The plan of one linear layer's weight."""
    target = Target(name, shape, "linear", (SourceSlice(name, 0, shape[0]),))
    return backend.plan_tensor(target, T5_ENCODER)


def made(
    checkpoint: Checkpoint, name: str, options: dict[str, Any], part: str, place: Path
) -> Variant:
    """One component of the tiny pipeline, with a backend's options."""
    backend = get_backend(name).configured(options)
    (variant,) = quantize(checkpoint, [backend], place, components=(part,))
    return variant


def by_library(checkpoint: Checkpoint, variant: Variant, part: str) -> torch.nn.Module:
    """The same component, quantized in memory by its library alone."""
    skipped = variant.component_plans()[part].skipped
    folder, architecture = checkpoint.components[part].path, ARCHITECTURES[part]
    return variant.backend.quantize_with_library(folder, architecture, skipped, "cpu")


# int8 and float8 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part", list(ARCHITECTURES))
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", EIGHT_BIT)
def test_variant_is_what_the_library_saves_and_runs(
    name: str, options: dict[str, Any], part: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Files equal `save_pretrained`, decoding equals `dequantize`, and what `from_pretrained` opens
    without a quantization config gives the outputs of the model quantized in memory."""
    variant = made(tiny_checkpoint, name, options, part, tmp_path / "ours")
    model = by_library(tiny_checkpoint, variant, part)
    variant.backend.save_with_library(model, tmp_path / "theirs", ARCHITECTURES[part])
    assert_same_component(variant.root / part, tmp_path / "theirs")

    weights = dict(model.named_parameters())
    for tensor, decoded in decode_component(variant.root, variant.component_plans()[part]):
        weight = weights[tensor]
        own = weight.dequantize() if hasattr(weight, "qdata") else weight.to(decoded.dtype)
        assert torch.equal(decoded, own), tensor

    loaded = reloaded(variant, part)
    assert {n: type(w) for n, w in loaded.named_parameters()} == {
        n: type(w) for n, w in weights.items()
    }
    want = output(model, part)
    assert bool(want.isfinite().all())
    assert torch.equal(output(loaded, part), want)


def reloaded(variant: Variant, part: str) -> torch.nn.Module:
    """One component, opened by its library as a user opens it."""
    model: torch.nn.Module = model_class(part).from_pretrained(
        variant.root / part, dtype=torch.bfloat16, local_files_only=True
    )
    return model


def output(model: torch.nn.Module, part: str) -> torch.Tensor:
    """What the model makes of fixed inputs."""
    noise = torch.Generator().manual_seed(0)
    if part == "text_encoder_2":
        ids = torch.randint(0, model.config.vocab_size, (2, 24), generator=noise)
        with torch.no_grad():
            return torch.as_tensor(model.eval()(ids)[0])

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise).bfloat16()

    config = model.config
    with torch.no_grad():
        return torch.as_tensor(
            model.eval()(
                hidden_states=normal(1, 16, config.in_channels),
                encoder_hidden_states=normal(1, 8, config.joint_attention_dim),
                pooled_projections=normal(1, config.pooled_projection_dim),
                timestep=torch.tensor([0.5], dtype=torch.bfloat16),
                guidance=torch.tensor([3.5]),
                img_ids=torch.zeros(16, 3),
                txt_ids=torch.zeros(8, 3),
            )[0]
        )


@pytest.mark.parametrize("options", [{}, {"granularity": "group"}], ids=str)
@pytest.mark.parametrize("name", EIGHT_BIT)
def test_pieces_encode_as_the_whole(name: str, options: dict[str, Any]) -> None:
    """Row after row, in pieces of any height."""
    backend = get_backend(name).configured(options)
    assert backend.rows_alone
    weight = torch.randn(WHOLE, generator=torch.Generator().manual_seed(1)).bfloat16()
    plan = planned(backend, WHOLE)
    whole = backend.encode(weight, plan)
    pieces = [backend.encode(rows, plan) for rows in weight.split([1, 1000, 7, 2064])]
    for stored in plan.stored:
        joined = torch.cat([piece[stored.name] for piece in pieces])
        assert tuple(joined.shape) == stored.shape
        assert torch.equal(joined.view(torch.uint8), whole[stored.name].view(torch.uint8))


@pytest.mark.parametrize("granularity", ["row", "tensor", "group"])
@pytest.mark.parametrize("name", EIGHT_BIT)
def test_weights_too_large_for_the_cache_encode_as_torchao_does(
    name: str, granularity: str
) -> None:
    """They are handed to torchao in pieces, also where one scale belongs to all of them."""
    backend = get_backend(name).configured({"granularity": granularity})
    assert isinstance(backend, EightBit)
    assert backend.rows_alone == (granularity != "tensor")
    shape = 2 * PIECE // 512 + 5, 512
    layer = torch.nn.Linear(*reversed(shape), bias=False, dtype=torch.bfloat16)
    layer.weight.data *= torch.linspace(0.1, 1, shape[0])[:, None]  # no piece is like another
    encoded = backend.encode(layer.weight.data, planned(backend, shape))
    quantize_(layer, backend.settings())
    own, _ = flatten_tensor_state_dict({"a.b.weight": layer.weight.data})
    assert encoded.keys() == own.keys()
    for part, data in own.items():
        assert encoded[part].shape == data.shape
        assert torch.equal(encoded[part].view(torch.uint8), data.view(torch.uint8))


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_rows_that_groups_do_not_divide_are_left_out_by_name(
    name: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """torchao fails on them, so the variant's config names them and the plan says why."""
    with pytest.raises(AssertionError, match="not divisible by group size"):
        quantize_(
            torch.nn.Linear(16, 8).bfloat16(), Int8WeightOnlyConfig(granularity=PerGroup(128))
        )
    variant = made(tiny_checkpoint, name, {"granularity": "group"}, "transformer", tmp_path)
    plan = variant.component_plans()["transformer"]
    assert plan.skipped == ("time_text_embed.text_embedder.linear_1", "x_embedder")
    assert plan.quantization_config is not None
    assert plan.quantization_config["modules_to_not_convert"] == list(plan.skipped)
    reasons = {tensor.name: tensor.reason for tensor in plan.tensors}
    assert reasons["x_embedder.weight"] == "kept: rows of 16 are no multiple of 128"


def test_skipping_takes_whatever_diffusers_cannot_tell_from_it(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    options = {"skip": ("^proj_out$", r"^transformer_blocks\.1\.attn\.to_q$")}
    variant = made(tiny_checkpoint, "torchao-fp8", options, "transformer", tmp_path)
    assert variant.component_plans()["transformer"].skipped == (
        "transformer_blocks.1.attn.to_q",
        "single_transformer_blocks.0.proj_out",
        "single_transformer_blocks.1.proj_out",
        "single_transformer_blocks.1.attn.to_q",
        "proj_out",
    )


@pytest.mark.parametrize("options", [{}, {"granularity": "tensor"}, GROUPS_OF_32], ids=str)
def test_float8_refuses_zeros_that_torchao_would_make_nan(options: dict[str, Any]) -> None:
    backend = get_backend("torchao-fp8").configured(options)
    with pytest.raises(BadWeight, match=r"a\.b\.weight: has zeros alone under one scale"):
        backend.encode(torch.zeros(8, 64, dtype=torch.bfloat16), planned(backend, (8, 64)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchao-int8", {"group_size": 64}, "group_size goes with granularity=group only"),
        ("torchao-fp8", {**GROUPS_OF_32, "group_size": 48}, "'48' is not one of 32, 64, 128, 256"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        get_backend(name).configured(options)
