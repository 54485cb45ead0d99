"""Reading a component's files end to end, ahead of their use, hashing on the way."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fluxconv.converters.component import Component
from fluxconv.converters.errors import SourceChanged
from fluxconv.converters.fingerprint import Fingerprint
from fluxconv.converters.ring import READ_AHEAD, Ring, Stopped
from fluxconv.converters.safetensors_header import Header
from fluxconv.converters.steps import Step
from fluxconv.converters.tensor_data import as_tensor, read_exactly

if TYPE_CHECKING:
    import torch

_Hash: TypeAlias = "hashlib._Hash | Fingerprint"
_PIECE = 1 << 22  # bytes read at once: hashed while they are still in the processor's cache


@dataclass(frozen=True)
class Read:
    """What became available: `weights` (name, tensor), none for a stored tensor that is of no use,
    and their `names`, known before any is made.

    `digest` is the sha256 of the file up to here, and `own` gives the fingerprint of the stored
    tensors that the weights are made of; where only a part of the file is read, both are the
    latter. The tensors lie in reused memory: call `release` when they are used no more, and do not
    touch them after that.
    """

    names: tuple[str, ...]
    weights: Iterable[tuple[str, torch.Tensor]]
    digest: str
    own: Callable[[], str]
    nbytes: int
    release: Callable[[], None]


@dataclass(frozen=True)
class _Stored:
    name: str
    tensor: torch.Tensor
    digest: str
    release: Callable[[], None]

    def unused(self) -> Read:
        """What is not, or not yet, of any use."""
        return Read((), (), self.digest, lambda: self.digest, self.tensor.nbytes, self.release)


class ComponentReader:
    """Iterates over what a component's files hold, in the order of the files, each read once.

    After the iteration, `hashes` holds the sha256 of every file. If not `whole`, only what the
    component's steps need is read, and there are no hashes. Raises `SourceChanged` if a file
    changes while it is read, `MalformedFile` if it ends early.
    """

    def __init__(self, component: Component, *, pinned: bool = False, whole: bool = True) -> None:
        self._component = component
        self._whole = whole
        self._needed = {name for step in component.steps for name in step.stored}
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
        waiting: dict[str, _Stored] = {}
        while (item := self._stored.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            step = step_of.get(item.name)
            if step is None:
                yield item.unused()
                continue
            waiting[item.name] = item
            if all(name in waiting for name in step.stored):
                yield self._read_of(step, [waiting.pop(name) for name in step.stored], item)
            else:  # a scale, that waits for its weight
                waiting[item.name] = replace(item, tensor=item.tensor.clone())
                yield item.unused()

    def _read_of(self, step: Step, stored: Sequence[_Stored], last: _Stored) -> Read:
        tensors = {each.name: each.tensor for each in stored}
        if self._whole:
            own = cache(lambda: _joined([_fingerprint(tensor) for tensor in tensors.values()]))
            digest = last.digest
        else:
            digest = _joined([each.digest for each in stored])
            own = cache(lambda: digest)
        weights = step.assemble(tensors)
        return Read(step.weights, weights, digest, own, last.tensor.nbytes, last.release)

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
        tensors = [info for info in header.tensors if self._whole or info.name in self._needed]
        if not (tensors or self._whole):
            return
        digest: _Hash = hashlib.sha256()
        handle = os.open(header.file, os.O_RDONLY)
        try:
            before = os.fstat(handle)
            if before.st_size != header.size:
                raise SourceChanged(f"{header.file}: changed since it was opened; run again")
            at = 0
            for info in tensors:
                if self._whole:
                    self._skim(handle, header, at, info.offset, digest)
                else:
                    digest = Fingerprint()
                room, raw = self._ring.take(info.nbytes)
                _read_hashed(handle, raw.numpy().data, info.offset, str(header.file), digest)
                self._stored.put(
                    _Stored(
                        info.name,
                        as_tensor(raw, info.dtype, info.shape),
                        digest.hexdigest(),
                        partial(self._ring.free, room),
                    )
                )
                at = info.offset + info.nbytes
            if self._whole:
                self._skim(handle, header, at, header.size, digest)
            after = os.fstat(handle)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise SourceChanged(f"{header.file}: changed while it was read; run again")
        finally:
            os.close(handle)
        if self._whole:
            self.hashes[header.file] = digest.hexdigest()

    def _skim(self, handle: int, header: Header, start: int, stop: int, digest: _Hash) -> None:
        """Hash what lies between tensors: the header, and a container's padding."""
        if stop > start:
            data = memoryview(bytearray(stop - start))
            _read_hashed(handle, data, start, str(header.file), digest)


def _read_hashed(handle: int, into: memoryview, offset: int, what: str, digest: _Hash) -> None:
    for start in range(0, into.nbytes, _PIECE):
        piece = into[start : start + _PIECE]
        read_exactly(handle, piece, offset + start, what)
        digest.update(piece)


def _fingerprint(tensor: torch.Tensor) -> str:
    import torch

    digest = Fingerprint()
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _joined(digests: Sequence[str]) -> str:
    """One digest of what several were taken of; that of one alone is its own."""
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
