"""bitsandbytes int8, "LLM.int8()": one absolute maximum for each row, symmetric.

Stored for each weight, as `Linear8bitLt`'s state dict has it (bitsandbytes, `nn/modules.py`):
`weight` (int8), `SCB` (fp32, the maximum of each row, so a weight is `weight * SCB / 127`) and
`weight_format`, a lone 0 for "row by row". Dettmers et al., "LLM.int8()", 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fluxconv.converters.backends.base import PlannedTensor, Requirement, Target, plain
from fluxconv.converters.backends.bitsandbytes import PIECE, BitsandbytesBackend
from fluxconv.converters.backends.options import Options
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch


class Int8Options(Options):
    """`threshold` is for activations: where a loaded layer meets larger ones, it multiplies that
    column in 16 bits; 0 for never. The stored weights are the same."""

    threshold: float = Field(default=6.0, ge=0, allow_inf_nan=False)


@dataclass(frozen=True)
class BitsandbytesInt8(BitsandbytesBackend):
    """Weights and activations in int8, but for the activations' outliers."""

    options: Int8Options = Int8Options()  # noqa: RUF009 - frozen

    def layer_state(self, target: Target) -> tuple[StoredTensor, ...]:
        module = target.name.removesuffix("weight")
        return (
            plain(target.name, "I8", target.shape),
            plain(f"{module}SCB", "F32", target.shape[:1]),
            plain(f"{module}weight_format", "U8", ()),
        )

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        import torch
        from bitsandbytes.functional import int8_vectorwise_quant
        from bitsandbytes.utils import LINEAR_8BIT_WEIGHTS_FORMAT_MAPPING

        # fp16, as `Int8Params` has it before it quantizes.
        pieces = [
            int8_vectorwise_quant(rows.to(torch.float16))
            for rows in torch.split(weight, max(1, PIECE // weight.shape[1]))
        ]
        parts = (
            torch.cat([data for data, _, _ in pieces]),
            torch.cat([maxima for _, maxima, _ in pieces]),
            torch.tensor(LINEAR_8BIT_WEIGHTS_FORMAT_MAPPING["row"], dtype=torch.uint8),
        )
        return {stored.name: part for stored, part in zip(planned.stored, parts, strict=True)}

    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        from bitsandbytes.functional import int8_vectorwise_dequant

        data, maxima, _ = (stored[part.name] for part in planned.stored)
        decoded: torch.Tensor = int8_vectorwise_dequant(data, maxima)
        return decoded

    def settings(self) -> dict[str, Any]:
        return {"load_in_8bit": True, "llm_int8_threshold": self.options.threshold}


BACKENDS = (
    BitsandbytesInt8(
        name="bnb-int8",
        title="bitsandbytes LLM.int8(), one scale a row",
        requirement=Requirement("bitsandbytes", "0.50"),
        bits=8.0,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cuda",),
        loads_in=("diffusers", "transformers"),
    ),
)
