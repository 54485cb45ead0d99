"""What a variant's files really hold, read from the files themselves and not from the plan."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.backends import Backend, PlannedTensor, SourceSlice
from fluxconv.converters.codec import decode_target, is_plain
from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.gguf.reader import read_gguf_header
from fluxconv.converters.layout import StoredTensor
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.safetensors_header import read_header
from fluxconv.converters.tensor_data import as_tensor, read_exactly

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StoredEntry:
    """One tensor in a file: `dtype` and `shape` in the container's own terms."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int
    is_gguf: bool

    def rows(self, start: int, stop: int, of: int) -> StoredEntry:
        """What it holds of the rows `start` to `stop`, where `of` rows of equal length lie in it
        one after the other."""
        first, last = (self.nbytes * row // of for row in (start, stop))
        shape = (self.shape[0] * (stop - start) // of, *self.shape[1:])
        return replace(self, shape=shape, offset=self.offset + first, nbytes=last - first)

    def read(self) -> torch.Tensor:
        """Its data: a tensor of its type for safetensors, 1-D uint8 for GGUF."""
        import torch

        raw = torch.empty(self.nbytes, dtype=torch.uint8)
        handle = os.open(self.file, os.O_RDONLY)
        try:
            read_exactly(handle, raw.numpy().data, self.offset, str(self.file))
        finally:
            os.close(handle)
        return raw if self.is_gguf else as_tensor(raw, self.dtype, self.shape)


def matches(entry: StoredEntry, planned: StoredTensor) -> bool:
    """Whether a file's tensor is what was planned; one that is not settled may be shorter."""
    if not planned.settled and len(entry.shape) == 1:
        return entry.dtype == planned.dtype and entry.nbytes <= planned.nbytes
    return (entry.dtype, entry.shape, entry.nbytes) == (
        planned.dtype,
        planned.shape,
        planned.nbytes,
    )


def read_entries(file: Path) -> tuple[StoredEntry, ...]:
    """Every tensor of a safetensors or GGUF file, in the order of the data.

    Raises `MalformedFile` or `CheckpointNotFound`.
    """
    if file.suffix == ".gguf":
        return tuple(
            StoredEntry(t.name, t.type_name, t.shape, file, t.offset, t.nbytes, True)
            for t in read_gguf_header(file).tensors
        )
    return tuple(
        StoredEntry(t.name, t.dtype, t.shape, file, t.offset, t.nbytes, False)
        for t in read_header(file).tensors
    )


def component_entries(root: Path, plan: ComponentPlan) -> dict[str, StoredEntry]:
    """Every tensor in the component's planned files of the variant at `root`, by name."""
    return {entry.name: entry for file in plan.files for entry in read_entries(root / file.name)}


def decode_component(root: Path, plan: ComponentPlan) -> Iterator[tuple[str, torch.Tensor]]:
    """The component's weights back under their source names, one target at a time.

    Float tensors in whatever float type the library's decoder gives. A source tensor whose rows
    come from several places (swapped halves) is yielded once, whole.
    """
    entries = component_entries(root, plan)
    shapes = {spec.name: spec.shape for spec in plan.specs}
    for planned in plan.tensors:
        weight = _decoded(plan.backend, planned, _stored(root, entries, planned))
        yield from split_rows(weight, planned.target.slices, shapes)


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a target; `decode` gives them, in whatever thread calls it."""

    planned: PlannedTensor
    start: int
    stop: int
    decode: Callable[[], torch.Tensor]


def pieces(root: Path, plan: ComponentPlan, weights: int) -> Iterator[Piece]:
    """The component's targets in pieces of about `weights` weights, each target from its first row
    to its last.

    Where rows stand alone, a piece is read and decoded by its `decode`, and stays in the
    processor's cache; else the whole target is, here, as it is reached.
    """
    entries = component_entries(root, plan)
    for planned in plan.tensors:
        stored = _stored(root, entries, planned)
        count, *columns = planned.target.shape
        step = max(1, weights // math.prod(columns)) if columns else count
        alone = plan.backend.rows_alone or is_plain(planned)
        whole = None if alone else _decoded(plan.backend, planned, stored)
        for start in range(0, count, step):
            stop = min(start + step, count)
            if whole is not None:
                decode: Callable[[], torch.Tensor] = partial(whole.__getitem__, slice(start, stop))
            else:
                rows = replace(planned.target, shape=(stop - start, *columns))
                decode = partial(
                    _decoded,
                    plan.backend,
                    replace(planned, target=rows),
                    {name: entry.rows(start, stop, count) for name, entry in stored.items()},
                )
            yield Piece(planned, start, stop, decode)


def _stored(
    root: Path, entries: Mapping[str, StoredEntry], planned: PlannedTensor
) -> dict[str, StoredEntry]:
    try:
        return {item.name: entries[item.name] for item in planned.stored}
    except KeyError as missing:
        raise MalformedFile(f"{root}: the tensor {missing} is missing") from None


def _decoded(
    backend: Backend, planned: PlannedTensor, stored: Mapping[str, StoredEntry]
) -> torch.Tensor:
    tensors = {name: entry.read() for name, entry in stored.items()}
    return decode_target(backend, planned, tensors)


def split_rows(
    weight: torch.Tensor, slices: tuple[SourceSlice, ...], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The source tensors, of these `shapes`, whose rows stand one below the other in `weight`."""
    found: dict[str, torch.Tensor] = {}
    row = 0
    for part in slices:
        if part.tensor not in found:
            found[part.tensor] = weight.new_empty(shapes[part.tensor])
        count = part.stop - part.start
        found[part.tensor][part.start : part.stop] = weight[row : row + count]
        row += count
    yield from found.items()
