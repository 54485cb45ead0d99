"""torchao int4, weight-only: 16 values for each group of a row, with a scale and a middle in bf16.

weight = scale * (code - 8) + middle, the code from 0 to 15. How the codes lie is the packing:

- tile_packed_to_4d, for PyTorch's own int4 kernel: rows are padded to 8 and columns to 1024, and
  cut into tiles of 8 rows by 128 columns, one `qdata[row tile, column tile]` (int32) each, in which
  `[32][4]` is the order of a tensor core's lanes (see `_unpack_tiles`); `scale_and_zero` (bf16) has
  a pair for each group and row, of the padding too.
- plain, for the kernels of mslk: `qdata` (int8) holds code - 8 in two's complement, the even column
  in the low half of a byte; `scale` and `zero_point` (bf16) have a row for each group.

Source: torchao, `quantization/quantize_/workflows/int4/`. Its other two packings are left out:
preshuffled cannot be saved as safetensors, plain_int32 is not for CUDA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.backends.base import Requirement, plain
from fluxconv.converters.backends.options import Options
from fluxconv.converters.backends.torchao import BFLOAT16, TorchaoBackend
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch

TILE_ROWS, TILE_COLUMNS, PADDED_COLUMNS = 8, 128, 1024


class Int4Options(Options):
    """`group_size` weights of a row share a scale; `packing` is how codes lie, which decides what
    runs them; `algorithm` is how scales are chosen: from the ends of the group ("tinygemm"), or by
    half-quadratic optimization ("hqq", slower and closer)."""

    group_size: Literal[32, 64, 128, 256] = 128
    packing: Literal["tile_packed_to_4d", "plain"] = "tile_packed_to_4d"
    algorithm: Literal["tinygemm", "hqq"] = "tinygemm"

    @model_validator(mode="after")
    def _torchao_has_both(self) -> Self:
        if self.algorithm == "hqq" and self.packing != "tile_packed_to_4d":
            raise ValueError("algorithm=hqq goes with packing=tile_packed_to_4d only")
        return self


@dataclass(frozen=True)
class Int4(TorchaoBackend):
    """`Int4WeightOnlyConfig` of torchao."""

    fails_on_unfit: ClassVar[bool] = False

    options: Int4Options = Int4Options()  # noqa: RUF009 - frozen

    @property
    def group_size(self) -> int:
        return self.options.group_size

    def settings(self) -> Any:
        from torchao.quantization import Int4WeightOnlyConfig
        from torchao.quantization.quantize_.workflows import (
            Int4ChooseQParamsAlgorithm,
            Int4PackingFormat,
        )

        return Int4WeightOnlyConfig(
            group_size=self.group_size,
            int4_packing_format=Int4PackingFormat(self.options.packing),
            int4_choose_qparams_algorithm=Int4ChooseQParamsAlgorithm(self.options.algorithm),
        )

    def quantized(self, weight: torch.Tensor) -> Any:
        from torchao.quantization import Int4Tensor, Int4TilePackedTo4dTensor
        from torchao.quantization.quantize_.workflows import Int4ChooseQParamsAlgorithm

        block = [1, self.group_size]
        if self.options.packing == "plain":
            return Int4Tensor.from_hp(weight, block)
        algorithm = Int4ChooseQParamsAlgorithm(self.options.algorithm)
        return Int4TilePackedTo4dTensor.from_hp(weight, block, algorithm)

    def parts(self, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        rows, columns = shape
        if self.options.packing == "plain":
            groups = (columns // self.group_size, rows)
            return (
                plain("qdata", "I8", (rows, columns // 2)),
                plain("scale", "BF16", groups),
                plain("zero_point", "BF16", groups),
            )
        rows, columns = _padded(rows, TILE_ROWS), _padded(columns, PADDED_COLUMNS)
        return (
            plain("qdata", "I32", (rows // TILE_ROWS, columns // TILE_COLUMNS, 32, 4)),
            plain("scale_and_zero", "BF16", (columns // self.group_size, rows, 2)),
        )

    def description(self, shape: tuple[int, ...]) -> dict[str, Any]:
        data = {"block_size": [1, self.group_size], "shape": list(shape)}
        if self.options.packing == "plain":
            return {
                "_type": "Int4Tensor",
                "_data": {"activation_dtype": BFLOAT16, **data},
                "_tensor_data_names": ["qdata", "scale", "zero_point"],
            }
        return {
            "_type": "Int4TilePackedTo4dTensor",
            "_data": data,
            "_tensor_data_names": ["qdata", "scale_and_zero"],
        }

    def dequantized(self, tensor: Any) -> torch.Tensor:
        # torchao 0.18 has no `dequantize` for these two classes, only for the codes unpacked. In
        # fp32, which rounds once like the fused multiply-add of the kernel.
        import torch
        from torchao.quantization.quant_primitives import _dequantize_affine_tinygemm

        if self.options.packing == "plain":
            codes = _halves(tensor.qdata).flatten(-2) ^ 8
            scale, middle = tensor.scale.t(), tensor.zero_point.t()
        else:
            codes = _unpack_tiles(tensor.qdata)
            scale, middle = tensor.scale_and_zero.transpose(0, 1).unbind(-1)
        whole: torch.Tensor = _dequantize_affine_tinygemm(
            codes,
            [1, self.group_size],
            scale.contiguous(),
            middle.contiguous(),
            torch.uint8,
            quant_min=0,
            quant_max=15,
        )
        rows, columns = tensor.shape
        return whole[:rows, :columns]

    def snippet(self, repository: str, files: Mapping[str, str]) -> str:
        text = super().snippet(repository, files)
        return f"# {_MSLK}\n{text}" if self.options.packing == "plain" else text

    def cannot_run(
        self, architecture: Architecture, config: Mapping[str, Any], device: str
    ) -> str | None:
        return super().cannot_run(architecture, config, device) or self.lack()

    def library_refuses(self, architecture: Architecture, device: str) -> str | None:
        return super().library_refuses(architecture, device) or self.lack()

    def lack(self) -> str | None:
        lacks = self.options.packing == "plain" and find_spec("mslk") is None
        return _MSLK if lacks else None


_MSLK = "needs mslk for packing=plain: pip install mslk-cuda"


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _halves(packed: torch.Tensor) -> torch.Tensor:
    """The low and the high half of each byte, as a last dimension more."""
    import torch

    data = packed.view(torch.uint8)
    return torch.stack([data & 15, data >> 4], dim=-1)


def _unpack_tiles(qdata: torch.Tensor) -> torch.Tensor:
    """The codes of tiles [row tiles][column tiles][32][4] int32, as uint8 in rows and columns.

    The layout is that of `matrix_to_m16n8k16_Bint4_layout` in PyTorch (`native/cuda/int4mm.cu`):
    four lanes a row, of which lane c has columns 8 i + 2 c + odd of each 32, one int32 for each 32
    columns, with `i` in the lower and `odd` in the upper part of the place among its 8 halves.
    """
    tall, wide = qdata.shape[:2]
    codes = _halves(qdata).view(tall, wide, TILE_ROWS, 4, 4, 2, 4)  # row, c, 32 columns, odd, i
    return codes.permute(0, 2, 1, 4, 6, 3, 5).reshape(tall * TILE_ROWS, wide * TILE_COLUMNS)


BACKENDS = (
    Int4(
        name="torchao-int4",
        title="torchao int4 weight-only, groups of 128",
        requirement=Requirement("torchao", "0.18"),
        bits=4.25,
        quantizes_on=("cuda",),
        runs_on=("cuda",),
        loads_in=("diffusers", "transformers"),
    ),
)
