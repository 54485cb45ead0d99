"""torchao int8 and float8, weight-only: symmetric, one fp32 scale for what shares it.

Stored for each weight: `qdata` (int8, or float8 with 4 bits of exponent and 3 of mantissa),
`scale` (fp32), and with int8 `zero_point` (int8, zeros). A scale is the largest magnitude under it
divided by 127.5 or 448; under it is a row, a group of a row, or the whole weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from fluxconv.converters.backends.base import PlannedTensor, Requirement, plain
from fluxconv.converters.backends.options import Options
from fluxconv.converters.backends.torchao import BFLOAT16, TorchaoBackend
from fluxconv.converters.errors import BadWeight
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch

#: Weights handed to torchao at once: it takes up to 16 bytes of temporary memory for each, and is
#: several times faster while these stay in the cache.
PIECE = 1 << 20


class EightBitOptions(Options):
    """`granularity` is what shares a scale: a row, the whole tensor, or with "group" `group_size`
    weights of a row."""

    granularity: Literal["row", "tensor", "group"] = "row"
    group_size: Literal[32, 64, 128, 256] = 128

    @model_validator(mode="after")
    def _groups_have_a_size(self) -> Self:
        if self.granularity != "group" and "group_size" in self.model_fields_set:
            raise ValueError("group_size goes with granularity=group only")
        return self


@dataclass(frozen=True)
class EightBit(TorchaoBackend):
    """One byte a weight."""

    options: EightBitOptions = EightBitOptions()  # noqa: RUF009 - frozen

    @property
    def rows_alone(self) -> bool:
        return self.options.granularity != "tensor"

    @property
    def group_size(self) -> int | None:
        return self.options.group_size if self.options.granularity == "group" else None

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        import torch

        encode = super().encode
        pieces = torch.split(weight, max(1, PIECE // weight.shape[1]))
        if self.rows_alone:
            encoded = [encode(rows, planned) for rows in pieces]
            return {name: torch.cat([part[name] for part in encoded]) for name in encoded[0]}
        # The scale follows from the least and the greatest weight alone. Two rows of these at the
        # end of each piece give it the scale of the whole, and are then taken off.
        ends = torch.stack(torch.aminmax(weight))[:, None].expand(2, weight.shape[1])
        encoded = [encode(torch.cat([rows, ends]), planned) for rows in pieces]
        codes = planned.stored[0].name
        return encoded[0] | {codes: torch.cat([part[codes][:-2] for part in encoded])}

    def block(self, shape: tuple[int, ...]) -> list[int]:
        """The rows and columns under one scale, for a weight of `shape`."""
        rows, columns = shape
        return {
            "row": [1, columns],
            "tensor": [rows, columns],
            "group": [1, self.options.group_size],
        }[self.options.granularity]

    def scales(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The shape of the scales of a weight of `shape`."""
        rows, columns = self.block(shape)
        return shape[0] // rows, shape[1] // columns

    def granularity(self) -> Any:
        """torchao's own object for it."""
        from torchao.quantization import PerGroup, PerRow, PerTensor

        return {
            "row": PerRow(),
            "tensor": PerTensor(),
            "group": PerGroup(self.options.group_size),
        }[self.options.granularity]


@dataclass(frozen=True)
class Int8(EightBit):
    """`Int8WeightOnlyConfig` of torchao."""

    def settings(self) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig

        return Int8WeightOnlyConfig(granularity=self.granularity())

    def quantized(self, weight: torch.Tensor) -> Any:
        from torchao.quantization import Int8Tensor

        return Int8Tensor.from_hp(weight, granularity=self.granularity())

    def parts(self, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        scales = self.scales(shape)
        return (
            plain("qdata", "I8", shape),
            plain("scale", "F32", scales),
            plain("zero_point", "I8", scales),
        )

    def description(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "_type": "Int8Tensor",
            "_data": {
                "act_quant_kwargs": None,
                "reduce_range": False,
                "block_size": self.block(shape),
                "dtype": BFLOAT16,
            },
            "_tensor_data_names": ["zero_point", "qdata", "scale"],
        }


@dataclass(frozen=True)
class Fp8(EightBit):
    """`Float8WeightOnlyConfig` of torchao."""

    def settings(self) -> Any:
        import torch
        from torchao.quantization import Float8WeightOnlyConfig

        # torchao's default is another type on some AMD devices, which the file could not say.
        return Float8WeightOnlyConfig(torch.float8_e4m3fn, granularity=self.granularity())

    def quantized(self, weight: torch.Tensor) -> Any:
        import torch
        from torchao.quantization import Float8Tensor

        return Float8Tensor.from_hp(weight, torch.float8_e4m3fn, self.granularity())

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        encoded = super().encode(weight, planned)
        if any(not bool(part.all()) for name, part in encoded.items() if name.endswith("scale")):
            raise BadWeight(
                f"{planned.name}: has zeros alone under one scale, by which torchao divides, so "
                "they would be stored as NaN; leave the layer out with --skip"
            )
        return encoded

    def parts(self, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        return plain("qdata", "F8_E4M3", shape), plain("scale", "F32", self.scales(shape))

    def description(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "_type": "Float8Tensor",
            "_data": {
                "block_size": self.block(shape),
                "mm_config": None,
                "act_quant_kwargs": None,
                "kernel_preference": {"_type": "KernelPreference", "_data": "AUTO"},
                "dtype": BFLOAT16,
            },
            "_tensor_data_names": ["qdata", "scale"],
        }


def _row(kind: type[EightBit], name: str, title: str) -> EightBit:
    return kind(
        name=f"torchao-{name}",
        title=f"torchao {title} weight-only, one scale a row",
        requirement=Requirement("torchao", "0.18"),
        bits=8.0,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu", "cuda"),
        loads_in=("diffusers", "transformers"),
    )


BACKENDS = (_row(Int8, "int8", "int8"), _row(Fp8, "fp8", "float8 (e4m3)"))
