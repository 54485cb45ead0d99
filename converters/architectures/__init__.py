"""The model families whose tensors fluxconv knows by name, shape and role."""

from __future__ import annotations

from fluxconv.converters.architectures.base import Architecture, Packed, TensorSpec
from fluxconv.converters.architectures.flux import FLUX
from fluxconv.converters.architectures.t5 import T5_ENCODER

#: The quantized components of a pipeline, by the name of their folder.
ARCHITECTURES: dict[str, Architecture] = {
    architecture.component: architecture for architecture in (FLUX, T5_ENCODER)
}

__all__ = ["ARCHITECTURES", "FLUX", "T5_ENCODER", "Architecture", "Packed", "TensorSpec"]
