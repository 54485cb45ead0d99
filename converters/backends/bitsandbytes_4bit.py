"""bitsandbytes 4-bit: blocks of 64 weights, one fp32 absolute maximum each, 16 fixed values.

Stored for each weight, as `Linear4bit`'s state dict has it (bitsandbytes, `functional.py`,
`QuantState.as_dict(packed=True)`): `weight` (uint8, two codes a byte), `weight.absmax` (fp32),
`weight.quant_map` (the 16 values), and `weight.quant_state.bitsandbytes__nf4`, a JSON text in
uint8. NF4: Dettmers et al., "QLoRA", 2023.

Encoding never runs the model: a forward pass on a CPU repacks the weights in place, and what is
saved after it reloads wrong without a warning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.backends.base import (
    KIND_REASONS,
    PlannedTensor,
    Requirement,
    Target,
    kept,
    plain,
)
from fluxconv.converters.backends.from_pretrained import FromPretrainedBackend

if TYPE_CHECKING:
    import torch

BLOCK_SIZE = 64


@dataclass(frozen=True)
class Bitsandbytes4Bit(FromPretrainedBackend):
    """4-bit weights with the 16 values of `quant_type`."""

    quant_type: str = "nf4"

    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        if target.kind != "linear" or not target.name.endswith(".weight"):
            return kept(target, KIND_REASONS.get(target.kind, target.kind))
        if architecture.library == "transformers" and target.name.endswith(".wo.weight"):
            # T5's `_keep_in_fp32_modules`: transformers leaves it out of bitsandbytes' layers.
            return kept(target, "T5 wo, which transformers leaves out")
        count = math.prod(target.shape)
        state = f"{target.name}.quant_state.bitsandbytes__{self.quant_type}"
        stored = (
            plain(target.name, "U8", ((count + 1) // 2, 1)),
            plain(f"{target.name}.absmax", "F32", (math.ceil(count / BLOCK_SIZE),)),
            plain(f"{target.name}.quant_map", "F32", (16,)),
            plain(state, "U8", (len(self._state_json(target.shape)),)),
        )
        return PlannedTensor(target, stored, "quantized")

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        from bitsandbytes.functional import quantize_4bit

        data, state = quantize_4bit(
            weight.contiguous(),
            blocksize=BLOCK_SIZE,
            quant_type=self.quant_type,
        )
        parts = {planned.name: data}
        for key, value in state.as_dict(packed=True).items():
            parts[f"{planned.name}.{key}"] = value
        return parts

    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        prefix = f"{planned.name}."
        data = stored[planned.name]
        state = QuantState.from_dict(
            {name.removeprefix(prefix): t for name, t in stored.items() if name != planned.name},
            device=data.device,
        )
        decoded: torch.Tensor = dequantize_4bit(data, state)
        return decoded

    def library_config(self, architecture: Architecture, skipped: tuple[str, ...]) -> Any:
        import torch

        if architecture.library == "diffusers":
            from diffusers import BitsAndBytesConfig
        else:
            from transformers import BitsAndBytesConfig
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=list(skipped) or None,
        )

    def library_refuses(self, architecture: Architecture, device: str) -> str | None:
        if device == "cpu" and architecture.library == "diffusers":
            return "diffusers quantizes with bitsandbytes only on a GPU"
        return super().library_refuses(architecture, device)

    def cannot_run(
        self, architecture: Architecture, config: Mapping[str, Any], device: str
    ) -> str | None:
        if device == "cpu" and architecture.library == "diffusers":
            return "diffusers opens bitsandbytes checkpoints only where it finds a GPU"
        return None

    def _state_json(self, shape: tuple[int, ...]) -> str:
        # The text is bitsandbytes' own (`pack_dict_to_tensor`); its length fixes a tensor's size.
        return json.dumps(
            {
                "quant_type": self.quant_type,
                "blocksize": BLOCK_SIZE,
                "dtype": "bfloat16",
                "shape": list(shape),
            }
        )


BACKENDS = (
    Bitsandbytes4Bit(
        name="bnb-nf4",
        title="bitsandbytes 4-bit NormalFloat, blocks of 64",
        requirement=Requirement("bitsandbytes", "0.50"),
        bits=4.5,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cuda",),
        loads_in=("diffusers", "transformers"),
        quant_type="nf4",
    ),
)
