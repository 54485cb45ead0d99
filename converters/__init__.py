"""Checkpoints in, quantized checkpoints out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_HOME = {
    "Checkpoint": "checkpoint",
    "open_checkpoint": "checkpoint",
    "dequantize": "dequantization",
    "plan": "planning",
    "quantize": "quantization",
    "Variant": "variant",
    "open_variant": "variant",
}


def __getattr__(name: str) -> Any:
    # Names are imported when first used, so that `fluxconv --help` need not load torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
