"""What the schemes of bitsandbytes share: which layers they take, and how a weight is fed to them.

Encoding never runs the model: a forward pass on a CPU repacks the weights in place, and what is
saved after it reloads wrong without a warning.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from fluxconv.converters.architectures import Architecture, TensorSpec
from fluxconv.converters.backends.base import KIND_REASONS, PlannedTensor, Target, kept
from fluxconv.converters.backends.from_pretrained import FromPretrainedBackend
from fluxconv.converters.layout import StoredTensor

#: Weights handed to bitsandbytes at once: on a CPU it takes up to 28 bytes of temporary memory for
#: each. Smaller pieces gain nothing, and several threads would wait for each other more often.
PIECE = 1 << 19


class BitsandbytesBackend(FromPretrainedBackend):
    """A scheme for the weights of linear layers."""

    @abstractmethod
    def layer_state(self, target: Target) -> tuple[StoredTensor, ...]:
        """What the layer's state dict holds in place of the weight `target`, in its order."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `BitsAndBytesConfig` is given beside the modules to skip."""

    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        why = self.left_out(target, architecture)
        if why is not None:
            return kept(target, why)
        return PlannedTensor(target, self.layer_state(target), "quantized")

    def left_out(self, tensor: Target | TensorSpec, architecture: Architecture) -> str | None:
        """Why the library does not quantize `tensor`, unasked; None if it does."""
        if tensor.kind != "linear" or not tensor.name.endswith(".weight"):
            return KIND_REASONS.get(tensor.kind, tensor.kind)
        if architecture.library == "transformers" and tensor.name.endswith(".wo.weight"):
            # T5's `_keep_in_fp32_modules`: transformers leaves it out of bitsandbytes' layers.
            return "T5 wo, which transformers leaves out"
        return None

    def skipped(self, specs: Sequence[TensorSpec], architecture: Architecture) -> tuple[str, ...]:
        chosen = super().skipped(specs, architecture)
        if architecture.library != "diffusers":
            return chosen
        # diffusers compares its list with the last part of a module's name as well: to skip the
        # model's own `proj_out` is to skip that of every single block.
        return tuple(
            spec.module
            for spec in specs
            if spec.kind == "linear" and {spec.module, spec.module.rpartition(".")[2]} & {*chosen}
        )

    def library_config(self, architecture: Architecture, skipped: tuple[str, ...]) -> Any:
        if architecture.library == "diffusers":
            from diffusers import BitsAndBytesConfig
        else:
            from transformers import BitsAndBytesConfig
        return BitsAndBytesConfig(**self.settings(), llm_int8_skip_modules=list(skipped) or None)

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
