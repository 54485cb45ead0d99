"""bitsandbytes 4-bit: blocks of 64 weights, one absolute maximum each, 16 fixed values.

Stored for each weight, as `Linear4bit`'s state dict has it (bitsandbytes, `functional.py`,
`QuantState.as_dict(packed=True)`): `weight` (uint8, two codes a byte), `weight.absmax` (fp32),
`weight.quant_map` (the 16 values), and `weight.quant_state.bitsandbytes__nf4`, a JSON text in
uint8. NF4 and double quantization: Dettmers et al., "QLoRA", 2023.

Double quantization takes the mean off the maxima and stores them as uint8, in blocks of 256 with
`weight.nested_absmax` (fp32) and 256 values `weight.nested_quant_map`. The mean stands in the JSON
text, whose length is therefore known only then; and its last digit depends on the number of threads
that torch adds up with.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.backends.base import PlannedTensor, Requirement, Target, plain
from fluxconv.converters.backends.bitsandbytes import PIECE, BitsandbytesBackend
from fluxconv.converters.backends.options import Options
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch

QuantType = Literal["nf4", "fp4"]

BLOCK_SIZE = 64
NESTED_BLOCK_SIZE = 256
# `_convert_weight_packed_for_cpu` repacks weights before the first forward pass in tiles.
TILE_OUTPUTS, TILE_INPUTS = 32, BLOCK_SIZE
#: No finite number is longer in JSON: 17 digits, two signs, and an exponent of three digits.
LONGEST_NUMBER = -sys.float_info.min


class FourBitOptions(Options):
    """`compute_dtype` is the type in which a loaded layer multiplies; `double_quant` quantizes the
    maxima of the blocks too."""

    compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    double_quant: bool = False


@dataclass(frozen=True, kw_only=True)
class Bitsandbytes4Bit(BitsandbytesBackend):
    """4-bit weights with the 16 values of `quant_type`."""

    quant_type: QuantType
    options: FourBitOptions = FourBitOptions()  # noqa: RUF009 - frozen

    def layer_state(self, target: Target) -> tuple[StoredTensor, ...]:
        count = math.prod(target.shape)
        blocks = math.ceil(count / BLOCK_SIZE)
        nested = self.options.double_quant
        text = len(self._state_json(target.shape))
        parts = [
            plain(target.name, "U8", ((count + 1) // 2, 1)),
            plain(f"{target.name}.absmax", "U8" if nested else "F32", (blocks,)),
            plain(f"{target.name}.quant_map", "F32", (16,)),
        ]
        if nested:
            nested_blocks = math.ceil(blocks / NESTED_BLOCK_SIZE)
            parts += [
                plain(f"{target.name}.nested_absmax", "F32", (nested_blocks,)),
                plain(f"{target.name}.nested_quant_map", "F32", (256,)),
            ]
        state = f"{target.name}.quant_state.bitsandbytes__{self.quant_type}"
        return (*parts, StoredTensor(state, "U8", (text,), text, settled=not nested))

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        data, state = self._quantize(weight)
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
        # The library's decoder for a CPU takes the maximum of another block where a row is not a
        # whole number of blocks; to it, the weight is one row.
        state.shape = (math.prod(planned.target.shape),)
        decoded: torch.Tensor = dequantize_4bit(data, state)
        return decoded.view(planned.target.shape)

    def settings(self) -> dict[str, Any]:
        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": self.quant_type,
            "bnb_4bit_compute_dtype": self.options.compute_dtype,
            "bnb_4bit_use_double_quant": self.options.double_quant,
        }

    def cannot_run(
        self, architecture: Architecture, config: Mapping[str, Any], device: str
    ) -> str | None:
        why = super().cannot_run(architecture, config, device)
        if why is None and device == "cpu" and not self._fits_tiles(architecture, config):
            from bitsandbytes.functional import has_avx512bf16

            if has_avx512bf16():  # what its tiles are for
                why = (
                    "on this CPU bitsandbytes runs only layers whose inputs are a multiple of "
                    f"{TILE_INPUTS}, and outputs of {TILE_OUTPUTS}"
                )
        return why

    def _fits_tiles(self, architecture: Architecture, config: Mapping[str, Any]) -> bool:
        specs = architecture.specs(config)
        kept = set(self.skipped(specs, architecture))
        return not any(
            spec.shape[0] % TILE_OUTPUTS or spec.shape[1] % TILE_INPUTS
            for spec in specs
            if self.left_out(spec, architecture) is None and spec.module not in kept
        )

    def _quantize(self, weight: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The packed codes and the `QuantState`, as `quantize_4bit` of the whole weight gives them.

        Blocks know nothing of each other, so they are quantized in pieces; only the mean of double
        quantization (`compress_statistics` there) is taken over all of them.
        """
        import torch
        from bitsandbytes.functional import QuantState, get_4bit_type, quantize_blockwise

        pieces = [self._quantize_piece(piece) for piece in torch.split(weight.reshape(-1), PIECE)]
        absmax = torch.cat([largest for _, largest in pieces])
        offset = nested = None
        if self.options.double_quant:
            offset = absmax.mean()
            absmax, nested = quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK_SIZE)
        state = QuantState(
            absmax=absmax,
            shape=weight.shape,
            code=get_4bit_type(self.quant_type, device=weight.device),
            blocksize=BLOCK_SIZE,
            quant_type=self.quant_type,
            dtype=weight.dtype,
            offset=offset,
            state2=nested,
        )
        return torch.cat([data for data, _ in pieces]), state

    def _quantize_piece(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Packed codes (n / 2, 1) and the largest value of each block, for n weights (1-D)."""
        import torch
        from bitsandbytes.functional import get_4bit_type, quantize_4bit

        if weights.device.type != "cpu" or weights.numel() % BLOCK_SIZE:
            data, state = quantize_4bit(weights, blocksize=BLOCK_SIZE, quant_type=self.quant_type)
            return data, state.absmax
        # The library's own steps for a CPU (`backends/default/ops.py`), except that the code, which
        # is the number of midpoints below a value, is counted and not searched for.
        levels, order = torch.sort(get_4bit_type(self.quant_type, device="cpu"))
        scaled = weights.float().view(-1, BLOCK_SIZE)
        absmax = scaled.abs().amax(dim=1)
        scaled *= (1.0 / absmax.clamp(min=1e-38)).view(-1, 1)
        scaled.clamp_(-1, 1)
        codes = torch.zeros(scaled.shape, dtype=torch.uint8)
        above = torch.empty(scaled.shape, dtype=torch.bool)
        for midpoint in ((levels[:-1] + levels[1:]) / 2).tolist():
            torch.gt(scaled, midpoint, out=above)
            codes += above.view(torch.uint8)
        if not torch.equal(order, torch.arange(len(order))):
            codes = order.to(torch.uint8)[codes.int()]
        codes = codes.view(-1, 2)
        return (codes[:, :1] << 4) | codes[:, 1:], absmax

    def _state_json(self, shape: tuple[int, ...]) -> str:
        # The text is bitsandbytes' own (`pack_dict_to_tensor`); its length fixes a tensor's size.
        state: dict[str, Any] = {
            "quant_type": self.quant_type,
            "blocksize": BLOCK_SIZE,
            "dtype": "bfloat16",
            "shape": list(shape),
        }
        if self.options.double_quant:
            state |= {
                "nested_blocksize": NESTED_BLOCK_SIZE,
                "nested_dtype": "float32",
                "nested_offset": LONGEST_NUMBER,
            }
        return json.dumps(state)


def _row(quant_type: QuantType, title: str) -> Bitsandbytes4Bit:
    return Bitsandbytes4Bit(
        name=f"bnb-{quant_type}",
        title=f"bitsandbytes 4-bit {title}, blocks of 64",
        requirement=Requirement("bitsandbytes", "0.50"),
        bits=4.5,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cuda",),
        loads_in=("diffusers", "transformers"),
        quant_type=quant_type,
    )


BACKENDS = (_row("nf4", "NormalFloat"), _row("fp4", "floating point"))
