"""The process in which a variant, or its source, is opened from disk: `process.Worker` starts it.

Jobs come in on stdin, one JSON object a line; events go out on stdout, one JSON object a line:
`start`, `advance`, `finish` and `note` are progress; `result`, `error` or `crash` ends the job.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fluxconv.converters.errors import FluxconvError
from fluxconv.converters.progress import Progress
from fluxconv.validators.report import Settings


def structure(progress: Progress, variant: str) -> Any:
    """Job: the structure layer."""
    from fluxconv.validators.structure import check_structure

    return check_structure(Path(variant), progress).model_dump(mode="json")


def weights(progress: Progress, variant: str, reference: dict[str, Any]) -> Any:
    """Job: the weights layer; `reference` is an `Opening`."""
    from fluxconv.converters.checkpoint import open_checkpoint
    from fluxconv.validators.weights import compare_weights

    found = compare_weights(Path(variant), open_checkpoint(**reference), progress)
    return {name: result.model_dump(mode="json") for name, result in found.items()}


def draw(
    progress: Progress,
    opening: dict[str, Any],
    role: str,
    device: str,
    settings: Any,
    folder: str,
) -> Any:
    """Job: draw every picture of `settings` with the source or the variant that `opening`, an
    `Opening`, is of."""
    from fluxconv.converters.checkpoint import Opening
    from fluxconv.validators.drawing import draw as draw_pictures

    wanted = Settings.model_validate(settings)
    drawing = draw_pictures(Opening(**opening), role, device, wanted, Path(folder), progress)
    return drawing.model_dump(mode="json")


JOBS: dict[str, Callable[..., Any]] = {"structure": structure, "weights": weights, "draw": draw}


class _Events:
    """Sends events; is the `Progress` of the jobs."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def send(self, event: dict[str, Any]) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self.send({"start": [task, total, unit]})

    def advance(self, amount: int, item: str = "") -> None:
        self.send({"advance": [amount, item]})

    def finish(self) -> None:
        self.send({"finish": True})

    def note(self, text: str) -> None:
        self.send({"note": text})


def main() -> None:
    """Do jobs until stdin ends."""
    # Libraries print to stdout; it is turned into stderr, and the events keep the real one.
    events = _Events(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        job = jobs.get()
        try:
            events.send({"result": JOBS[job["job"]](events, **job["request"])})
        except FluxconvError as error:
            events.send({"error": str(error)})
        except Exception as error:
            first = str(error).strip().split("\n")[0]
            events.send({"crash": f"{type(error).__name__}: {first}"})
            raise


def _listen(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    # The parent is gone, perhaps killed: what is being worked on is of no use to anybody.
    os._exit(0)


if __name__ == "__main__":
    main()
