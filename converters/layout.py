"""What a file will hold, byte for byte, before it is written.

Both containers, safetensors and GGUF, put a header in front and the tensors behind it at positions
that follow from names, types and shapes. So writing needs no order: the header goes first, and
every tensor goes to its place whenever it is ready.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as a file holds it; `dtype` is the container's own name (`BF16`, `Q8_0`).

    Where it is not `settled`, it is 1-D and `nbytes` is the most it may take: its length depends on
    the weights and is known when they are encoded.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    settled: bool = True


@dataclass(frozen=True)
class Placement:
    """Where a stored tensor lies; `offset` counts from the start of the file."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class FileLayout:
    """A file as it will be: its name inside the component, its header, its tensors' places."""

    name: str
    header: bytes
    placements: Mapping[str, Placement]
    size: int


class LayoutWriter:
    """Writes the files of `layouts` below `folder`, tensor by tensor, at their places.

    The files have their final size from the start, so gaps (alignment) are zeros. With `resume`,
    what files of that size hold already stays. `suffix` is added to the files' names.
    """

    def __init__(
        self,
        folder: Path,
        layouts: tuple[FileLayout, ...],
        *,
        resume: bool = False,
        suffix: str = "",
    ) -> None:
        self._folder = folder
        self._layouts = layouts
        self._keep = 0 if resume else os.O_TRUNC
        self._suffix = suffix
        self._files: dict[str, int] = {}
        self._place: dict[str, tuple[str, Placement]] = {
            tensor: (layout.name, placement)
            for layout in layouts
            for tensor, placement in layout.placements.items()
        }

    def __enter__(self) -> LayoutWriter:
        for layout in self._layouts:
            path = self._folder / (layout.name + self._suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            # 0644: the safetensors library leaves 0600, which another user cannot read. Opened for
            # writing alone: a client of NFS that may read, too, would send whole pages back, with
            # what another machine has just written there as it was before.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | self._keep, 0o644)
            self._files[layout.name] = handle
            os.ftruncate(handle, layout.size)
            _write_all(handle, memoryview(layout.header), 0)
        return self

    def write(self, tensor: str, data: memoryview, start: int = 0) -> None:
        """Write `data` (bytes) into the stored tensor `tensor`, `start` bytes into it."""
        file, place = self._place[tensor]
        if start < 0 or start + data.nbytes > place.nbytes:
            raise ValueError(f"{tensor}: {data.nbytes} bytes at {start} exceed {place.nbytes}")
        _write_all(self._files[file], data, place.offset + start)

    def sync(self) -> None:
        """Have the disk hold for good what was written so far."""
        for handle in self._files.values():
            os.fdatasync(handle)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._files.values():
            if kind is None:
                os.fsync(handle)
            os.close(handle)
        self._files.clear()


def _write_all(handle: int, data: memoryview, offset: int) -> None:
    while data.nbytes:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
