"""Writing in the background, in order, while the next weights are encoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

WRITE_BEHIND = 128 << 20  # bytes that may wait to be written


class WriteBehind:
    """Runs jobs one after another on a thread of its own; a context manager.

    What waits is bounded in bytes. An error of a job is raised by the next `put`, or at the end of
    the block; the jobs behind it are dropped.
    """

    def __init__(self) -> None:
        self._jobs: deque[tuple[int, Callable[[], None]]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def put(self, nbytes: int, job: Callable[[], None]) -> None:
        """Have `job` run after all before it; `nbytes` is the memory that it holds on to."""
        with self._changed:
            while self._bytes and self._bytes + nbytes > WRITE_BEHIND and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            self._jobs.append((nbytes, job))
            self._bytes += nbytes
            self._changed.notify_all()

    def __enter__(self) -> WriteBehind:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            if kind is not None:
                self._jobs.clear()
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._ended:
                    self._changed.wait()
                if not self._jobs:
                    return
                nbytes, job = self._jobs.popleft()
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - it belongs to the thread that puts
                with self._changed:
                    self._error = error
                    self._jobs.clear()
                    self._changed.notify_all()
                return
            finally:
                del job  # what it held may be large
            with self._changed:
                self._bytes -= nbytes
                self._changed.notify_all()
