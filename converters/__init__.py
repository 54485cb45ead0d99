"""Checkpoints in, quantized checkpoints out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.converters.checkpoint import Checkpoint, open_checkpoint
    from fluxconv.converters.dequantization import dequantize
    from fluxconv.converters.planning import plan
    from fluxconv.converters.quantization import quantize
    from fluxconv.converters.variant import Variant, open_variant

__all__ = [
    "Checkpoint",
    "Variant",
    "dequantize",
    "open_checkpoint",
    "open_variant",
    "plan",
    "quantize",
]

__getattr__ = lazy(
    __name__,
    {
        "Checkpoint": "checkpoint",
        "open_checkpoint": "checkpoint",
        "dequantize": "dequantization",
        "plan": "planning",
        "quantize": "quantization",
        "Variant": "variant",
        "open_variant": "variant",
    },
)
