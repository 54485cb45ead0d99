"""Checkpoints in, quantized checkpoints out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.converters.checkpoint import Checkpoint, open_checkpoint
    from fluxconv.converters.dequantization import dequantize, dequantize_file
    from fluxconv.converters.inspection import InspectedComponent, Inspection, inspect
    from fluxconv.converters.parts import quantize_part
    from fluxconv.converters.planning import ComponentPlan, VariantPlan, plan
    from fluxconv.converters.progress import Progress, Silent
    from fluxconv.converters.quantization import quantize
    from fluxconv.converters.variant import Variant, open_variant

__all__ = [
    "Checkpoint",
    "ComponentPlan",
    "InspectedComponent",
    "Inspection",
    "Progress",
    "Silent",
    "Variant",
    "VariantPlan",
    "dequantize",
    "dequantize_file",
    "inspect",
    "open_checkpoint",
    "open_variant",
    "plan",
    "quantize",
    "quantize_part",
]

__getattr__ = lazy(
    __name__,
    {
        "Checkpoint": "checkpoint",
        "open_checkpoint": "checkpoint",
        "dequantize": "dequantization",
        "dequantize_file": "dequantization",
        "InspectedComponent": "inspection",
        "Inspection": "inspection",
        "inspect": "inspection",
        "ComponentPlan": "planning",
        "VariantPlan": "planning",
        "plan": "planning",
        "Progress": "progress",
        "Silent": "progress",
        "quantize": "quantization",
        "quantize_part": "parts",
        "Variant": "variant",
        "open_variant": "variant",
    },
)
