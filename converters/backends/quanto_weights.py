"""How optimum-quanto stores one weight: as bytes with a scale a row, or as packed groups of codes.

Source: optimum-quanto 0.2.7, `nn/qmodule.py` (the choice of scales and groups) and
`tensor/weights/` (the tensors). Both classes call the library's own optimizer and quantizer, piece
by piece: taken whole, a large weight spends most of the library's time in fresh memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxconv.converters.backends.base import plain
from fluxconv.converters.errors import BadWeight
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch

#: Weights encoded at a time: 2 MiB of bf16, which the cache of a processor core holds.
PIECE = 1 << 20
#: The group sizes that quanto tries, for rows longer than the first (`QModuleMixin.__init__`).
GROUP_SIZES = (128, 96, 64, 32)


@dataclass(frozen=True)
class QuantoWeights(ABC):
    """Weights of one quanto type, `qtype`. Names are those in `QLinear`'s state dict."""

    qtype: str

    @abstractmethod
    def parts(self, name: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        """What the weight `name` of `shape` is stored as."""

    @abstractmethod
    def encode(self, weight: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
        """The tensors of `parts`, by name; `weight` is a 2-D bf16 tensor.

        Raises `BadWeight` for one that quanto would turn into NaN.
        """

    @abstractmethod
    def decode(
        self, stored: Mapping[str, torch.Tensor], name: str, shape: tuple[int, ...]
    ) -> torch.Tensor:
        """The weight in bf16, from the tensors of `parts`."""


@dataclass(frozen=True)
class ByteWeights(QuantoWeights):
    """One byte a weight of type `dtype`, symmetric, and one bf16 scale a row."""

    dtype: str

    def parts(self, name: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        return (
            plain(f"{name}._data", self.dtype, shape),
            plain(f"{name}._scale", "BF16", (shape[0], 1)),
        )

    def encode(self, weight: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
        from optimum.quanto import AbsmaxOptimizer, qtypes, quantize_weight

        qtype, scale_of = qtypes[self.qtype], AbsmaxOptimizer()
        data = weight.new_empty(weight.shape, dtype=qtype.dtype)
        scale = weight.new_empty(len(weight), 1)
        pieces = math.ceil(weight.numel() / PIECE)
        for rows, codes, scales in zip(
            *(whole.tensor_split(pieces) for whole in (weight, data, scale)), strict=True
        ):
            scales.copy_(scale_of(rows, qtype, axis=0))
            # "Optimized" would be the format of this device's kernel, not the one that is saved.
            quantized = quantize_weight(rows, qtype, axis=0, scale=scales, optimized=False)
            codes.copy_(quantized._data)
        if qtype.is_floating_point and not bool(scale.all()):
            raise BadWeight(
                f"'{name}' has a row of zeros, which optimum-quanto's {self.qtype} turns into NaN; "
                "name its module with --skip, or choose another backend"
            )
        return {f"{name}._data": data, f"{name}._scale": scale}

    def decode(
        self, stored: Mapping[str, torch.Tensor], name: str, shape: tuple[int, ...]
    ) -> torch.Tensor:
        from optimum.quanto import WeightQBytesTensor, qtypes

        data, scale = stored[f"{name}._data"], stored[f"{name}._scale"]
        whole = WeightQBytesTensor(qtypes[self.qtype], 0, shape, data.stride(), data, scale, None)
        decoded: torch.Tensor = whole.dequantize()
        return decoded


@dataclass(frozen=True)
class BitWeights(QuantoWeights):
    """Groups of `bits`-bit codes, each with a bf16 scale and a bf16 shift (minus its minimum).

    A group is part of a row, or a whole row if no group size divides it. With n groups and c codes
    a byte, row i of the packed bytes holds groups i, i + n/c, i + 2n/c, ..., the first in the
    lowest bits; so the rows of a weight cannot be encoded apart.
    """

    bits: int

    def parts(self, name: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        size = group_size(shape[1]) or shape[1]
        groups = math.prod(shape) // size
        return (
            plain(f"{name}._data._data", "U8", (math.ceil(groups * self.bits / 8), size)),
            plain(f"{name}._scale", "BF16", (groups, 1)),
            plain(f"{name}._shift", "BF16", (groups, 1)),
        )

    def encode(self, weight: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
        import torch
        from optimum.quanto import MaxOptimizer, qtypes, quantize_weight

        qtype, scale_of = qtypes[self.qtype], MaxOptimizer()
        packed, one_scale, _ = self.parts(name, tuple(weight.shape))
        data = weight.new_empty(packed.shape, dtype=torch.uint8)
        # One layer of groups for each code of a byte: a column of them is packed into one row.
        layers = 8 // self.bits
        if one_scale.shape[0] % layers:  # the last layer is short
            layers, pieces = 1, 1
        else:
            pieces = math.ceil(weight.numel() / PIECE)
        groups = weight.reshape(layers, -1, packed.shape[1])
        scale, shift = (weight.new_empty(layers, groups.shape[1], 1) for _ in range(2))
        for column, codes, scales, shifts in zip(
            groups.tensor_split(pieces, dim=1),
            data.tensor_split(pieces),
            scale.tensor_split(pieces, dim=1),
            shift.tensor_split(pieces, dim=1),
            strict=True,
        ):
            rows = column.reshape(-1, packed.shape[1])
            of_rows = scale_of(rows, qtype, axis=0)
            quantized = quantize_weight(rows, qtype, 0, *of_rows, optimized=False)
            codes.copy_(quantized._data._data)
            scales.copy_(of_rows[0].view_as(scales))
            shifts.copy_(of_rows[1].view_as(shifts))
        if self.bits == 4 and group_size(weight.shape[1]) == GROUP_SIZES[0]:
            # Those weights quanto keeps in torch's int4 format, which has the middle of the range
            # for the shift; what it saves was turned into that and back, in bf16.
            middle = 8 * scale
            shift = middle - (middle - shift)
        return {
            f"{name}._data._data": data,
            f"{name}._scale": scale.view(-1, 1),
            f"{name}._shift": shift.view(-1, 1),
        }

    def decode(
        self, stored: Mapping[str, torch.Tensor], name: str, shape: tuple[int, ...]
    ) -> torch.Tensor:
        import torch
        from optimum.quanto import WeightQBitsTensor, qtypes

        packed, scale, shift = (
            stored[f"{name}.{part}"] for part in ("_data._data", "_scale", "_shift")
        )
        layers = [packed >> start & (1 << self.bits) - 1 for start in range(0, 8, self.bits)]
        codes = torch.cat(layers)[: len(scale)]
        whole = WeightQBitsTensor(
            qtypes[self.qtype], 0, codes.shape[1], shape, (shape[1], 1), codes, scale, shift
        )
        # It packed the codes again, and would compile an extension to unpack them.
        whole._data = codes
        decoded: torch.Tensor = whole.dequantize()
        return decoded


def group_size(columns: int) -> int | None:
    """How many neighbours in a row of `columns` weights share a scale; None if the whole row."""
    if columns <= GROUP_SIZES[0]:
        return None
    return next((size for size in GROUP_SIZES if columns % size == 0), None)
