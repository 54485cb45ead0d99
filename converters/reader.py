"""Reading tensors in file order, each once, into one reused buffer, hashing on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.checkpoint import Component
from fluxconv.converters.errors import MalformedFile, SourceChanged
from fluxconv.converters.safetensors_header import Header, TensorInfo

if TYPE_CHECKING:
    import torch


class ComponentReader:
    """Iterates over a component's tensors.

    A yielded tensor shares the reader's buffer: it is valid until the next one is asked for.
    After the iteration, `hashes` holds the sha256 of every file (they are read end to end, so this
    costs no second pass).
    """

    def __init__(self, component: Component) -> None:
        self._component = component
        self.hashes: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[TensorInfo, torch.Tensor]]:
        import torch

        largest = max((t.nbytes for t in self._component.tensors.values()), default=0)
        buffer = torch.empty(largest, dtype=torch.uint8)
        for header in self._component.headers:
            yield from self._read_file(header, buffer)

    def _read_file(
        self, header: Header, buffer: torch.Tensor
    ) -> Iterator[tuple[TensorInfo, torch.Tensor]]:
        digest = hashlib.sha256()
        handle = os.open(header.file, os.O_RDONLY)
        try:
            before = os.fstat(handle)
            if before.st_size != header.size:
                raise SourceChanged(f"{header.file}: changed since it was opened; run again")
            head = memoryview(bytearray(header.data_start))
            read_exactly(handle, head, 0, str(header.file))
            digest.update(head)
            view = buffer.numpy().data
            for info in header.tensors:
                data = view[: info.nbytes]
                read_exactly(handle, data, info.offset, str(header.file))
                digest.update(data)
                yield info, as_tensor(buffer[: info.nbytes], info.dtype, info.shape)
            after = os.fstat(handle)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise SourceChanged(f"{header.file}: changed while it was read; run again")
        finally:
            os.close(handle)
        self.hashes[header.file.name] = digest.hexdigest()


def read_tensor(info: TensorInfo) -> torch.Tensor:
    """One tensor, in memory of its own."""
    import torch

    buffer = torch.empty(info.nbytes, dtype=torch.uint8)
    handle = os.open(info.file, os.O_RDONLY)
    try:
        read_exactly(handle, buffer.numpy().data, info.offset, str(info.file))
    finally:
        os.close(handle)
    return as_tensor(buffer, info.dtype, info.shape)


def as_tensor(raw: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The bytes `raw` (uint8, 1-D) seen as a tensor of the safetensors type `dtype`; no copy."""
    return raw.view(dtypes.torch_dtype(dtype)).view(shape)


def read_exactly(handle: int, into: memoryview, offset: int, what: str) -> None:
    """Fill `into` (bytes) from `offset`; `MalformedFile` if the file ends before."""
    while into.nbytes:
        count = os.preadv(handle, [into], offset)
        if count == 0:
            raise MalformedFile(f"{what}: ends at byte {offset}; it was truncated")
        into, offset = into[count:], offset + count
