"""One component of a checkpoint: the files that hold it, and how they become its weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.safetensors_header import Header, TensorInfo
from fluxconv.converters.steps import Step
from fluxconv.converters.tensor_data import read_tensor

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Component:
    """One component: its config, the checked headers of its weight files, and the steps from what
    they store to its weights.

    `path` is its folder, or the one file that it is. `files` are all files that it is read from,
    weights and config, and `carried` those that a variant takes over where it is not quantized,
    both by the name that a manifest gives them. `carried` is empty where no library would open it
    as it is.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    architecture: Architecture
    headers: tuple[Header, ...]
    steps: tuple[Step, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    carried: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every stored tensor by name, in the order in which reading is sequential."""
        return {tensor.name: tensor for header in self.headers for tensor in header.tensors}

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors, those of no use included: they are read, too."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the stored tensors that the weights are made of."""
        return sum(self.tensors[name].nbytes for step in self.steps for name in step.stored)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every weight by its name, in the order of the library's state dict."""
        return {spec.name: spec.shape for spec in self.architecture.specs(self.config)}

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every weight, in memory of its own, in about the order of the files."""
        for step in self.steps:
            yield from step.assemble(self._read(step))

    def read(self, weight: str) -> torch.Tensor:
        """One weight, in a float type; raises `KeyError` if there is none of that name.

        What else was made of the same stored tensors is kept for the next calls, for each until it
        is asked for: so the parts of a fused tensor cost one read.
        """
        for made in self._kept:
            if weight in made:
                return made.pop(weight)
        step = self._step_of[weight]
        made = dict(step.assemble(self._read(step)))
        found = made.pop(weight)
        if made:
            self._kept.append(made)
        return found

    @cached_property
    def _step_of(self) -> Mapping[str, Step]:
        return {weight: step for step in self.steps for weight in step.weights}

    @cached_property
    def _kept(self) -> deque[dict[str, torch.Tensor]]:
        # Two: weight and bias of the parts of a fused module are asked for in turns.
        return deque(maxlen=2)

    def _read(self, step: Step) -> dict[str, torch.Tensor]:
        return {name: read_tensor(self.tensors[name]) for name in step.stored}
