"""Weights to the bytes of a GGUF type, and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.gguf.encoders.kernels import kernel
from fluxconv.converters.gguf.encoders.types import Effort
from fluxconv.converters.gguf.types import TYPES
from fluxconv.converters.threads import torch_threads

if TYPE_CHECKING:
    import torch

# What a column of no importance counts beside the average one: where nothing else distinguishes two
# choices, its error still decides.
_LEAST_IMPORTANCE = 1e-6


def encode(
    weight: torch.Tensor,
    type_name: str,
    importance: torch.Tensor | None = None,
    effort: Effort = "best",
    *,
    unbiased: bool = False,
) -> torch.Tensor:
    """`weight` (rows, columns) as uint8 (rows, bytes of a row), on the same device.

    Any float type, all values finite; a row must be whole blocks of the type. `importance`
    (columns,), none negative: how much the error of a weight of each column counts; Q8_0, which is
    never searched for, and plain floats take no notice. `effort`: "best" searches for the least
    error; "fast" looks at fewer candidates, and at Q4_0, Q4_1, Q5_0 and Q5_1 gives the bytes of
    gguf-py's `quants.quantize`, unless there are importances. The least error is that of a block
    that is a little too short; `unbiased` stretches it to the length of its weights, which costs
    some error, most at two and three bits, and often brings a model's output closer. Every block is
    encoded alone, in fp32: its bytes depend on nothing but its weights and their importances. Works
    with as many threads as `torch.get_num_threads()`.

    Raises `ValueError` for a row that is no whole number of blocks, and for importances of another
    length, negative or not finite.
    """
    import torch

    rows, columns = weight.shape
    kind = TYPES[type_name]
    if columns % kind.weights:
        raise ValueError(f"{type_name}: rows of {columns} are no multiple of {kind.weights}")
    counts = None if importance is None else _checked(importance, columns).to(weight.device)
    if type_name in dtypes.FLOATS:
        return weight.to(dtypes.torch_dtype(type_name)).contiguous().view(torch.uint8)
    blocks = weight.reshape(-1, kind.weights)
    encoded = weight.new_empty((len(blocks), kind.nbytes), dtype=torch.uint8)
    device = weight.device.type
    weighted = counts is not None
    found = kernel(type_name, effort, weighted=weighted, unbiased=unbiased, device=device)
    counted = None if counts is None else counts.view(-1, kind.weights)

    def work(start: int) -> None:
        part = blocks[start : start + found.blocks]
        inputs = [_filled(part, found.blocks)]
        if counted is not None and found.weighted:
            place = torch.arange(start, start + found.blocks, device=weight.device)
            inputs.append(counted[place % len(counted)])
        found.run(encoded[start : start + len(part)], *inputs)

    _in_threads(work, range(0, len(blocks), found.blocks))
    return encoded.view(rows, kind.row_bytes(columns))


def decode(blocks: torch.Tensor, type_name: str, columns: int) -> torch.Tensor:
    """Bytes of whole rows of `columns` weights, uint8 on the CPU in any shape, as fp32
    (rows, columns): by gguf-py, the judge of our encoders."""
    import torch
    from gguf import GGMLQuantizationType, quants

    rows = blocks.numpy().reshape(-1, TYPES[type_name].row_bytes(columns))
    return torch.from_numpy(quants.dequantize(rows, GGMLQuantizationType[type_name]))


def _checked(importance: torch.Tensor, columns: int) -> torch.Tensor:
    """fp32 with a mean of 1 and nothing that is quite 0."""
    import torch

    if importance.shape != (columns,):
        shape = tuple(importance.shape)
        raise ValueError(f"importances of shape {shape} for rows of {columns} weights")
    counts = importance.to(torch.float64)
    if not bool(torch.isfinite(counts).all()) or bool((counts < 0).any()):
        raise ValueError("importances must be finite, and none negative")
    mean = counts.mean()
    if mean == 0:
        return torch.ones_like(counts, dtype=torch.float32)
    return (counts / mean).clamp(min=_LEAST_IMPORTANCE).to(torch.float32)


def _filled(blocks: torch.Tensor, count: int) -> torch.Tensor:
    """`count` blocks in fp32, zeros at the end: a kernel always takes as many."""
    import torch

    if len(blocks) == count:
        return blocks.to(torch.float32).contiguous()
    filled = blocks.new_zeros((count, blocks.shape[1]), dtype=torch.float32)
    filled[: len(blocks)] = blocks
    return filled


def _in_threads(work: Callable[[int], None], starts: range) -> None:
    import torch

    def some(first: int) -> None:
        for start in starts[first::threads]:
            work(start)

    threads = max(1, min(torch.get_num_threads(), len(starts)))
    if threads == 1:
        some(0)
        return
    with torch_threads(1):
        for _ in _pool(threads).map(some, range(threads)):
            pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "encode")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
