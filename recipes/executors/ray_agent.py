"""What a Ray task does: one node, in a process of its own beside the task."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fluxconv.converters.errors import BadInput
from fluxconv.recipes.executors.base import Ended, Event, Outcome, Problem, Progressed, Request
from fluxconv.recipes.executors.local import LocalExecutor
from fluxconv.recipes.executors.scratch import is_url

#: In the output, by which a worker knows that it sees the driver's own folder.
TOKEN = Path(".fluxconv-run") / "shared"
_TICK = 0.2  # seconds between two looks at the process
_EVERY = 0.5  # seconds between two words on how far it is
_PATIENCE = 60.0  # seconds for an end in order once the task is cancelled


def do(data: Mapping[str, Any], token: str, on_gpu: bool) -> Iterator[Event]:
    """Do the node of a request, given as data, and yield what happens; the last word is its end.

    The process is the task's own child and ends with it, whatever ends the task.
    """
    request = Request.from_json(data)
    # Where the output is a URL, the process itself fetches and brings.
    problem = None if is_url(request.output) else _unseen(request.output, token)
    if problem is None:
        yield from _done(request, on_gpu)
    else:
        yield Ended(request.node.id, Outcome(None, problem, 0.0, None, platform.node(), 0))


def _done(request: Request, on_gpu: bool) -> Iterator[Event]:
    with LocalExecutor(device="cuda" if on_gpu else "cpu", processes=1) as executor:
        executor.submit(request)
        try:
            yield from _Thinned().of(executor)
        except (KeyboardInterrupt, GeneratorExit):
            executor.cancel()
            until = time.monotonic() + _PATIENCE
            while time.monotonic() < until and not _is_last(executor.next(_TICK)):
                pass
            raise


class _Thinned:
    """Events, with steps forward that come close together put into one."""

    def __init__(self) -> None:
        self._steps = 0
        self._last: Progressed | None = None
        self._said = 0.0

    def of(self, executor: LocalExecutor) -> Iterator[Event]:
        while True:
            event = executor.next(_TICK)
            if isinstance(event, Progressed) and event.event == "advance":
                self._steps += event.arguments[0]
                self._last = event
                event = None
            elif event is not None:
                yield from self._step()
                yield event
            if event is None and time.monotonic() - self._said > _EVERY:
                yield from self._step()
            if _is_last(event):
                return

    def _step(self) -> Iterator[Event]:
        if self._last is not None:
            yield Progressed(self._last.id, "advance", (self._steps, *self._last.arguments[1:]))
        self._steps, self._last, self._said = 0, None, time.monotonic()


def _is_last(event: Event | None) -> bool:
    return event is not None and type(event).__name__ in ("Ended", "Lost")


def _unseen(output: str, token: str) -> Problem | None:
    """The problem with an output that is not the folder which the driver sees under that name."""
    try:
        found = (Path(output) / TOKEN).read_text()
    except OSError:
        found = ""
    if found == token:
        return None
    return Problem(
        BadInput.__name__,
        f"{output}: the worker on {platform.node()} sees another folder there, or none; choose an "
        "output that all machines share under the same path",
        BadInput.exit_code,
    )
