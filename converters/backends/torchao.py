"""What the schemes of torchao share: which layers they take, and how their tensors are saved.

torchao saves a tensor class flattened (`torchao.prototype.safetensors.flatten_tensor_state_dict`):
`x.weight` becomes `x._weight_qdata`, `x._weight_scale` and so on. The header's metadata holds a
JSON text for each tensor, from which the loader rebuilds it, and the names of all tensors.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from fluxconv.converters.architectures import Architecture, TensorSpec
from fluxconv.converters.backends.base import KIND_REASONS, PlannedTensor, Target, kept
from fluxconv.converters.backends.from_pretrained import FromPretrainedBackend
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch

#: How a description names the type of the weights that were quantized.
BFLOAT16 = {"_type": "torch.dtype", "_data": "bfloat16"}


class TorchaoBackend(FromPretrainedBackend):
    """A weight-only scheme for linear layers."""

    #: Whether torchao fails on a weight that is unfit; if not, it leaves it as it is.
    fails_on_unfit: ClassVar[bool] = True

    @abstractmethod
    def settings(self) -> Any:
        """torchao's own configuration object."""

    @abstractmethod
    def quantized(self, weight: torch.Tensor) -> Any:
        """A bf16 weight, or some of its rows if `rows_alone`, as an object of torchao's class."""

    @abstractmethod
    def parts(self, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        """The tensors inside such an object for a weight of `shape`, under their names in it."""

    @abstractmethod
    def description(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """What the JSON text of such an object says, its keys in torchao's order."""

    def dequantized(self, tensor: Any) -> torch.Tensor:
        """The weight back from such an object."""
        weight: torch.Tensor = tensor.dequantize()
        return weight

    @property
    def group_size(self) -> int | None:
        """How many weights of a row share a scale; None: it does not depend on a row's length."""
        return None

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        """Why a weight of `shape` cannot be quantized; None if it can."""
        if self.group_size is None or shape[1] % self.group_size == 0:
            return None
        return f"rows of {shape[1]} are no multiple of {self.group_size}"

    # What is stored ----------------------------------------------------------------------------

    def skipped(self, specs: Sequence[TensorSpec], architecture: Architecture) -> tuple[str, ...]:
        linear = [spec for spec in specs if spec.kind == "linear"]
        chosen = {*super().skipped(specs, architecture)}
        if self.fails_on_unfit:  # so the library has to be told to leave them alone
            chosen |= {spec.module for spec in linear if self.unfit(spec.shape)}
        if architecture.library == "diffusers":
            # It looks for the name and a dot anywhere in a tensor's name: to skip the model's own
            # `proj_out` is to skip that of every single block.
            chosen |= {s.module for s in linear if any(f"{name}." in s.name for name in chosen)}
        return tuple(spec.module for spec in linear if spec.module in chosen)

    def plan_skipped(self, target: Target, architecture: Architecture) -> PlannedTensor:
        why = self.unfit(target.shape)
        return kept(target, why) if why else super().plan_skipped(target, architecture)

    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        if target.kind != "linear" or not target.name.endswith(".weight"):
            return kept(target, KIND_REASONS.get(target.kind, target.kind))
        if (why := self.unfit(target.shape)) is not None:
            return kept(target, why)
        prefix = _prefix(target.name)
        stored = tuple(
            replace(part, name=f"{prefix}{part.name}") for part in self.parts(target.shape)
        )
        return PlannedTensor(target, stored, "quantized")

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        from torchao.prototype.safetensors.safetensors_utils import (
            TensorSubclassAttributeJSONEncoder,
        )

        shape, prefix = tuple(weight.shape), _prefix(planned.name)
        tensor = self.quantized(weight)
        described = json.dumps(tensor, cls=TensorSubclassAttributeJSONEncoder)
        if described != json.dumps(self.description(shape)):
            raise RuntimeError(
                f"this torchao describes {planned.name} as {described}, which is not the format "
                "this version of fluxconv plans for"
            )
        return {f"{prefix}{part.name}": getattr(tensor, part.name) for part in self.parts(shape)}

    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

        metadata = {
            planned.name: json.dumps(self.description(planned.target.shape)),
            "tensor_names": json.dumps([planned.name]),
        }
        rebuilt, _ = unflatten_tensor_state_dict(dict(stored), metadata)
        return self.dequantized(rebuilt[planned.name])

    def header_metadata(
        self, planned: tuple[PlannedTensor, ...], architecture: Architecture
    ) -> dict[str, str]:
        metadata = {"format": "pt"}
        names = []
        for tensor in planned:
            said = self.description(tensor.target.shape) if tensor.quantized else _PLAIN
            for name in (tensor.name, *architecture.tied.get(tensor.name, ())):
                names.append(name)
                metadata[name] = json.dumps(said)
        return metadata | {"tensor_names": json.dumps(names)}

    def library_config(self, architecture: Architecture, skipped: tuple[str, ...]) -> Any:
        if architecture.library == "diffusers":
            from diffusers import TorchAoConfig
        else:
            from transformers import TorchAoConfig
        return TorchAoConfig(self.settings(), modules_to_not_convert=list(skipped) or None)


_PLAIN = {"_type": "Tensor"}


def _prefix(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{module}._{leaf}_"
