"""torchao's int4: planned from shapes alone, and torchao's own files where its kernels are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from test_equal_to_library import assert_same_component
from test_torchao import by_library, planned, reloaded
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import (
    Int4Tensor,
    Int4TilePackedTo4dTensor,
    MappingType,
    quant_primitives,
)
from torchao.quantization.utils import pack_tinygemm_scales_and_zeros

from fluxconv.converters import Checkpoint, quantize
from fluxconv.converters.architectures import ARCHITECTURES, T5_ENCODER
from fluxconv.converters.backends import Backend, get_backend, missing
from fluxconv.converters.errors import UsageError

#: FLUX.1's and T5's own shapes, and those that padding changes.
SHAPES = ((3072, 3072), (18432, 3072), (3072, 15360), (64, 3072), (4096, 10240), (20, 768))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("group_size", [32, 64, 128, 256])
def test_planned_tiles_are_those_of_torch(group_size: int, shape: tuple[int, int]) -> None:
    """Names, types, shapes and the JSON text, from the shape functions of torch and torchao."""
    rows, columns = shape
    tall, wide = rows + -rows % 8, columns + -columns % 1024  # as `from_hp` pads
    codes = torch.empty(tall, wide // 2, dtype=torch.uint8, device="meta")
    scales = torch.empty(tall, wide // group_size, dtype=torch.bfloat16, device="meta")
    tensor = Int4TilePackedTo4dTensor(
        torch.ops.aten._convert_weight_to_int4pack(codes, 8),
        pack_tinygemm_scales_and_zeros(scales, scales, scales.dtype),
        [1, group_size],
        torch.Size(shape),
    )
    assert_planned({"group_size": group_size}, tensor)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_planned_plain_codes_are_those_of_torchao(shape: tuple[int, int]) -> None:
    rows, columns = shape
    scales = torch.empty(columns // 128, rows, dtype=torch.bfloat16, device="meta")
    codes = torch.empty(rows, columns // 2, dtype=torch.int8, device="meta")
    tensor = Int4Tensor(codes, scales, scales, [1, 128], torch.Size(shape))
    assert_planned({"packing": "plain"}, tensor)


def assert_planned(options: dict[str, Any], tensor: torch.Tensor) -> None:
    backend = get_backend("torchao-int4").configured(options)
    plan = planned(backend, tuple(tensor.shape))
    parts, metadata = flatten_tensor_state_dict({plan.name: tensor})
    names = {"I32": torch.int32, "I8": torch.int8, "BF16": torch.bfloat16}
    assert {part.name: (names[part.dtype], part.shape) for part in plan.stored} == {
        name: (part.dtype, tuple(part.shape)) for name, part in parts.items()
    }
    said = backend.header_metadata((plan,), T5_ENCODER)
    assert said == {"format": "pt", **metadata}


def test_int4_leaves_rows_that_groups_do_not_divide_as_torchao_does() -> None:
    backend = get_backend("torchao-int4")
    assert planned(backend, (3072, 64)).reason == "kept: rows of 64 are no multiple of 128"
    assert planned(backend.configured({"group_size": 64}), (3072, 64)).reason == "quantized"


def pack_tiles(codes: torch.Tensor, inner: int) -> torch.Tensor:
    """`matrix_to_m16n8k16_Bint4_layout` of PyTorch (`native/cuda/int4mm.cu`), lane by lane.

    `codes` has two columns a byte, the even one in the high half.
    """
    tall, wide = codes.shape[0] // 8, codes.shape[1] * 2 // (inner * 16)
    packed = torch.zeros(tall, wide, 32, inner // 2, dtype=torch.int64)
    for lane in range(32):
        for tile in range(0, inner, 2):
            first = (torch.arange(wide) * inner + tile) * 8 + lane % 4
            v = [codes[lane // 4 :: 8, first + step].long() for step in (0, 4, 8, 12)]
            halves = [each >> 4 for each in v] + [each & 15 for each in v]
            for place, half in enumerate(halves):
                packed[:, :, lane, tile // 2] |= half << 4 * place
    return packed.to(torch.int32)


@pytest.fixture
def int4_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The backend where there is no GPU: all of it is torchao's own code, but for the one kernel
    that PyTorch has for CUDA only, which only moves bits."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_convert_weight_to_int4pack", pack_tiles, "CPU")
        yield replace(get_backend("torchao-int4"), quantizes_on=("cpu",))


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("transformer", {}),
        ("text_encoder_2", {"group_size": 32, "skip": ("wo$",)}),
        ("text_encoder_2", {"algorithm": "hqq"}),
    ],
    ids=str,
)
def test_int4_gives_the_library_s_own_files(
    part: str,
    options: dict[str, Any],
    int4_on_cpu: Backend,
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    """And they open without a quantization config, to the very same tensors."""
    backend = int4_on_cpu.configured(options)
    (variant,) = quantize(tiny_checkpoint, [backend], tmp_path / "ours", components=(part,))
    model = by_library(tiny_checkpoint, variant, part)
    backend.save_with_library(model, tmp_path / "theirs", ARCHITECTURES[part])
    assert_same_component(variant.root / part, tmp_path / "theirs")

    loaded = reloaded(variant, part)
    quantized = {t.name for t in variant.component_plans()[part].tensors if t.quantized}
    for name, weight in model.named_parameters():
        again = loaded.get_parameter(name)
        assert type(again) is type(weight)
        assert hasattr(weight, "scale_and_zero") == (name in quantized)
        if name in quantized:
            assert torch.equal(again.qdata, weight.qdata)
            assert torch.equal(again.scale_and_zero, weight.scale_and_zero)


@pytest.mark.parametrize("shape", [(64, 1024), (20, 768)], ids=str)
def test_int4_tiles_decode_to_the_codes_packed(
    shape: tuple[int, int], int4_on_cpu: Backend
) -> None:
    """Bit for bit what torchao makes of its codes when it does not pack them."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    block, bf16 = (1, 128), torch.bfloat16
    scale, middle = quant_primitives._choose_qparams_affine_tinygemm(
        weight, MappingType.ASYMMETRIC, block, torch.int32, 0, 15, None, bf16, bf16
    )
    codes = quant_primitives._quantize_affine_tinygemm(
        weight, block, scale, middle, torch.int32, 0, 15
    )
    want = quant_primitives._dequantize_affine_tinygemm(
        codes, block, scale, middle, torch.int32, 0, 15
    )
    plan = planned(int4_on_cpu, shape)
    assert torch.equal(int4_on_cpu.decode(int4_on_cpu.encode(weight, plan), plan), want)


def test_plain_int4_codes_decode_as_mslk_packs_them() -> None:
    """code - 8 in two's complement, even columns low; weight = scale * (code - 8) + middle."""
    backend = get_backend("torchao-int4").configured({"packing": "plain", "group_size": 32})
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(3, 8)
    scale = torch.rand(4, 3).bfloat16()
    middle = torch.randn(4, 3).bfloat16()
    stored = {
        "a.b._weight_qdata": (codes[:, ::2] & 15) | (codes[:, 1::2] << 4),
        "a.b._weight_scale": scale,
        "a.b._weight_zero_point": middle,
    }
    want = codes * scale.t().float().repeat_interleave(32, 1)
    want += middle.t().float().repeat_interleave(32, 1)
    assert torch.equal(backend.decode(stored, planned(backend, (3, 128))), want)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch's int4 kernel needs CUDA")
@pytest.mark.parametrize("shape", [(64, 1024), (24, 768)], ids=str)
def test_int4_decodes_to_what_the_kernel_multiplies_with(shape: tuple[int, int]) -> None:
    backend = get_backend("torchao-int4")
    plan = planned(backend, shape)
    stored = backend.encode(torch.randn(shape, dtype=torch.bfloat16, device="cuda"), plan)
    tensor = Int4TilePackedTo4dTensor(
        stored["a.b._weight_qdata"], stored["a.b._weight_scale_and_zero"], [1, 128], shape
    )
    identity = torch.eye(shape[1], dtype=torch.bfloat16, device="cuda")
    by_kernel = torch.nn.functional.linear(identity, tensor).t()
    assert torch.equal(backend.decode(stored, plan).bfloat16(), by_kernel)


@pytest.mark.skipif(find_spec("mslk") is not None, reason="mslk is installed")
def test_plain_int4_says_what_it_needs() -> None:
    backend = get_backend("torchao-int4").configured({"packing": "plain"})
    assert "needs mslk" in (missing(backend, "cuda") or "")
    assert "needs mslk" in (backend.cannot_run(T5_ENCODER, {}, "cuda") or "")
    assert "needs mslk" in (backend.library_refuses(T5_ENCODER, "cuda") or "")
    assert backend.snippet("me/x", {}).startswith("# needs mslk")


def test_plain_int4_has_no_hqq() -> None:
    with pytest.raises(UsageError, match="algorithm=hqq goes with packing=tile_packed_to_4d only"):
        get_backend("torchao-int4").configured({"packing": "plain", "algorithm": "hqq"})
