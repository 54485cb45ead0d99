"""Reading a component's files end to end, ahead of their use, hashing on the way."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.component import Component
from fluxconv.converters.errors import SourceChanged
from fluxconv.converters.ring import READ_AHEAD, Ring, Stopped
from fluxconv.converters.safetensors_header import Header
from fluxconv.converters.tensor_data import as_tensor, read_exactly

if TYPE_CHECKING:
    import torch

_PIECE = 1 << 22  # bytes read at once: hashed while they are still in the processor's cache


@dataclass(frozen=True)
class Read:
    """What became available: `weights` (name, tensor), none for a stored tensor that is of no use.

    `digest` is the sha256 of the file up to here. The tensors lie in reused memory: call `release`
    when they are used no more, and do not touch them after that.
    """

    weights: Iterable[tuple[str, torch.Tensor]]
    digest: str
    nbytes: int
    release: Callable[[], None]


@dataclass(frozen=True)
class _Stored:
    name: str
    tensor: torch.Tensor
    digest: str
    release: Callable[[], None]


class ComponentReader:
    """Iterates over what a component's files hold, in the order of the files, each read once.

    After the iteration, `hashes` holds the sha256 of every file. Raises `SourceChanged` if a file
    changes while it is read, `MalformedFile` if it ends early.
    """

    def __init__(self, component: Component, *, pinned: bool = False) -> None:
        self._component = component
        largest = max((t.nbytes for h in component.headers for t in h.tensors), default=0)
        self._ring = Ring(max(largest, min(READ_AHEAD, component.nbytes)), pinned=pinned)
        self._stored: queue.SimpleQueue[_Stored | BaseException | None] = queue.SimpleQueue()
        self.hashes: dict[Path, str] = {}

    def __iter__(self) -> Iterator[Read]:
        ahead = threading.Thread(target=self._read_ahead, name="reader", daemon=True)
        ahead.start()
        try:
            yield from self._steps()
        finally:
            self._ring.close()
            ahead.join()

    def _steps(self) -> Iterator[Read]:
        step_of = {name: step for step in self._component.steps for name in step.stored}
        waiting: dict[str, torch.Tensor] = {}
        while (item := self._stored.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            nbytes = item.tensor.nbytes
            step = step_of.get(item.name)
            if step is None:
                yield Read((), item.digest, nbytes, item.release)
                continue
            waiting[item.name] = item.tensor
            if all(name in waiting for name in step.stored):
                tensors = {name: waiting.pop(name) for name in step.stored}
                yield Read(step.assemble(tensors), item.digest, nbytes, item.release)
            else:
                waiting[item.name] = item.tensor.clone()  # a scale, that waits for its weight
                yield Read((), item.digest, nbytes, item.release)

    def _read_ahead(self) -> None:
        try:
            for header in self._component.headers:
                self._read_file(header)
            self._stored.put(None)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that iterates
            self._stored.put(error)

    def _read_file(self, header: Header) -> None:
        digest = hashlib.sha256()
        handle = os.open(header.file, os.O_RDONLY)
        try:
            before = os.fstat(handle)
            if before.st_size != header.size:
                raise SourceChanged(f"{header.file}: changed since it was opened; run again")
            at = 0
            for info in header.tensors:
                self._skim(handle, header, at, info.offset, digest)
                room, raw = self._ring.take(info.nbytes)
                _read_hashed(handle, raw.numpy().data, info.offset, str(header.file), digest)
                self._stored.put(
                    _Stored(
                        info.name,
                        as_tensor(raw, info.dtype, info.shape),
                        digest.copy().hexdigest(),
                        partial(self._ring.free, room),
                    )
                )
                at = info.offset + info.nbytes
            self._skim(handle, header, at, header.size, digest)
            after = os.fstat(handle)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise SourceChanged(f"{header.file}: changed while it was read; run again")
        finally:
            os.close(handle)
        self.hashes[header.file] = digest.hexdigest()

    def _skim(
        self, handle: int, header: Header, start: int, stop: int, digest: hashlib._Hash
    ) -> None:
        """Hash what lies between tensors: the header, and a container's padding."""
        if stop > start:
            data = memoryview(bytearray(stop - start))
            _read_hashed(handle, data, start, str(header.file), digest)


def _read_hashed(
    handle: int, into: memoryview, offset: int, what: str, digest: hashlib._Hash
) -> None:
    for start in range(0, into.nbytes, _PIECE):
        piece = into[start : start + _PIECE]
        read_exactly(handle, piece, offset + start, what)
        digest.update(piece)
