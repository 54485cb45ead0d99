"""How the tensors of a source's files become the weights of its architecture.

A file is read from end to end. As soon as all stored tensors of a step are there, the step gives
its weights, under the names and in the shapes of the diffusers or transformers layout. A plain
source has one step a tensor; a fused tensor gives several weights, a scaled one needs its scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxconv.converters.architectures.recognition import Part

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


def rows_step(stored: str, parts: Sequence[Part], scale: str | None = None) -> Step:
    """The rows of one stored tensor, part by part, as the weights that they are.

    With `scale`, the name of a tensor of one number, or of one for each row, the weights are the
    stored values times it, computed in fp32 and rounded to bf16. Float8 without a scale becomes
    bf16, which holds all its values; other types stay as they are.
    """

    def assemble(tensors: Mapping[str, torch.Tensor]) -> Iterable[tuple[str, torch.Tensor]]:
        start = 0
        for part in parts:
            stop = start + part.shape[0]
            rows = _values(tensors[stored], tensors[scale] if scale else None, slice(start, stop))
            start = stop
            yield part.weight, _swap_halves(rows) if part.swapped else rows

    needed = (stored,) if scale is None else (stored, scale)
    return Step(needed, tuple(part.weight for part in parts), assemble)


def _values(stored: torch.Tensor, scale: torch.Tensor | None, rows: slice) -> torch.Tensor:
    import torch

    values = stored[rows]
    if scale is None:
        return values.to(torch.bfloat16) if values.dtype.itemsize == 1 else values
    factors = scale.to(torch.float32).reshape(-1, *[1] * (values.ndim - 1))
    if scale.numel() > 1:
        factors = factors[rows]
    return (values.to(torch.float32) * factors).to(torch.bfloat16)


def _swap_halves(rows: torch.Tensor) -> torch.Tensor:
    import torch

    first, second = rows.chunk(2)
    return torch.cat([second, first])
