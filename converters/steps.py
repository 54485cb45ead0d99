"""How the tensors of a source's files become the weights of its architecture.

A file is read from end to end. As soon as all stored tensors of a step are there, the step gives
its weights, under the names and in the shapes of the diffusers or transformers layout. A plain
source has one step a tensor; a fused tensor gives several weights, a scaled one needs its scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Assemble = Callable[[Mapping[str, "torch.Tensor"]], Iterable[tuple[str, "torch.Tensor"]]]


@dataclass(frozen=True)
class Step:
    """Stored tensors that are needed together, and the weights that they give.

    `assemble` takes the stored tensors by name (valid only during the call and until the last of
    its weights is used) and yields every weight of `weights` once, in a float type; views of what
    was stored are welcome, as nobody changes them.
    """

    stored: tuple[str, ...]
    weights: tuple[str, ...]
    assemble: Assemble


def plain_step(stored: str, weight: str | None = None) -> Step:
    """The stored tensor as it is, under the name `weight` (its own if None)."""
    name = weight or stored

    def assemble(tensors: Mapping[str, torch.Tensor]) -> Iterable[tuple[str, torch.Tensor]]:
        yield name, tensors[stored]

    return Step((stored,), (name,), assemble)
