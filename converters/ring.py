"""Reused memory for tensors that come and go in order."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

READ_AHEAD = 256 << 20  # bytes read ahead of their use, at least one tensor
_ALIGNMENT = 64  # any element type may be viewed at it


class Stopped(Exception):
    """The ring was closed while somebody waited for room."""


@dataclass
class Room:
    """A piece of the ring, in use until `Ring.free`."""

    start: int
    end: int
    in_use: bool = True


class Ring:
    """A fixed block of memory handed out in pieces, round and round.

    Fresh memory costs the kernel a fault and zeros for every page; reused memory costs nothing, and
    the sum never grows. `pinned` memory lets a GPU copy from it while the CPU goes on.
    """

    def __init__(self, nbytes: int, *, pinned: bool = False) -> None:
        import torch

        self._memory = torch.empty(_rounded(nbytes), dtype=torch.uint8, pin_memory=pinned)
        self._rooms: deque[Room] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def take(self, nbytes: int) -> tuple[Room, torch.Tensor]:
        """Wait for `nbytes` of room, at most the ring's own size; returns it and its bytes (uint8,
        1-D). Raises `Stopped` if the ring is closed."""
        size = _rounded(nbytes)
        with self._changed:
            while True:
                if self._closed:
                    raise Stopped
                start = self._find(size)
                if start is not None:
                    break
                self._changed.wait()
            room = Room(start, start + size)
            self._rooms.append(room)
        return room, self._memory[start : start + nbytes]

    def free(self, room: Room) -> None:
        """Give a piece back."""
        with self._changed:
            room.in_use = False
            while self._rooms and not self._rooms[0].in_use:
                self._rooms.popleft()
            self._changed.notify_all()

    def close(self) -> None:
        """Wake whoever waits for room; nothing more is handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _find(self, size: int) -> int | None:
        if not self._rooms:
            return 0
        head, tail = self._rooms[0].start, self._rooms[-1].end
        if tail > head:  # used from head to tail: there is room behind it, and before it
            if self._memory.numel() - tail >= size:
                return tail
            return 0 if head >= size else None
        return tail if head - tail >= size else None


def _rounded(nbytes: int) -> int:
    return max(nbytes, 1) + -max(nbytes, 1) % _ALIGNMENT
