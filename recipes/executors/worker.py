"""The process that does one node for the local executor.

The request comes in on stdin, as one line of JSON; events go out on stdout, one a line: `start`,
`advance`, `finish` and `note` are progress, `outcome` is the end.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from dataclasses import asdict, replace
from typing import IO, Any

from fluxconv.converters.errors import FluxconvError
from fluxconv.converters.libraries import hush
from fluxconv.recipes.executors.base import Outcome, Problem, Request, run_node
from fluxconv.recipes.executors.scratch import BROUGHT, is_url, refuse_url, scratch


class _Sender:
    """Sends events; is the `Progress` of the node."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: str, *arguments: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps([event, *arguments]) + "\n")
            self._stream.flush()

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self.send("start", task, total, unit)

    def advance(self, amount: int, item: str = "") -> None:
        self.send("advance", amount, item)

    def finish(self) -> None:
        self.send("finish")

    def note(self, text: str) -> None:
        self.send("note", text)


def main() -> None:
    """Do the node that stdin asks for, and end."""
    # Libraries print to stdout; it is turned into stderr, and the events keep the real one.
    sender = _Sender(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    hush()
    request = Request.from_json(json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    outcome = _done(request, sender)
    sender.send("outcome", asdict(outcome))
    # Threads in the midst of compiled code cannot be ended in order.
    os._exit(0)


def _done(request: Request, sender: _Sender) -> Outcome:
    """Do the node where the output lies; one that is a URL gets what was made in a folder here."""
    if not is_url(request.output):
        return run_node(request, sender)
    try:
        refuse_url(request.output, request.node)
        with scratch(request.output, request.node, request.inputs) as here:
            outcome = run_node(replace(request, output=str(here.folder)), sender)
            if outcome.result is None:
                return outcome
            return replace(outcome, result={**outcome.result, BROUGHT: here.bring()})
    except (OSError, FluxconvError) as error:
        return Outcome(None, Problem.of(error), 0.0, None, platform.node(), os.getpid())


def _end_with_the_driver() -> None:
    sys.stdin.read()
    # It is gone, perhaps killed: what is being done now, the next run does again.
    os._exit(1)


if __name__ == "__main__":
    main()
