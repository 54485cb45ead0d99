"""What a variant's files really hold, read from the files themselves and not from the plan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.backends import SourceSlice
from fluxconv.converters.codec import decode_target
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
        try:
            stored: Mapping[str, torch.Tensor] = {
                item.name: entries[item.name].read() for item in planned.stored
            }
        except KeyError as missing:
            raise MalformedFile(f"{root}: the tensor {missing} is missing") from None
        weight = decode_target(plan.backend, planned, stored)
        yield from split_rows(weight, planned.target.slices, shapes)


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
