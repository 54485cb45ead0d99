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
from contextlib import AbstractContextManager, nullcontext
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


def source(
    progress: Progress,
    opening: dict[str, Any],
    device: str,
    mode: str,
    settings: Any,
    folder: str,
) -> Any:
    """Job: draw what `folder` lacks of the source's drawings, its noise floor with them."""
    from fluxconv.converters.checkpoint import Opening
    from fluxconv.validators.source_drawings import draw_source

    wanted = Settings.model_validate(settings)
    draw_source(Opening(**opening), device, mode, wanted, Path(folder), progress)


def execution(progress: Progress, variant: str, device: str, mode: str, settings: Any) -> Any:
    """Job: open the variant's pipeline, and say how its components run."""
    _, found = _pipeline(variant, device, mode, Settings.model_validate(settings))
    return {name: how.model_dump(mode="json") for name, how in found.items()}


def text_encoder(
    progress: Progress, variant: str, device: str, mode: str, settings: Any, recordings: str
) -> Any:
    """Job: the text encoder layer, against what the source's drawings recorded."""
    from fluxconv.validators.drawing import Wanted
    from fluxconv.validators.teacher import compare_text

    wanted = Settings.model_validate(settings)
    pipeline, _ = _pipeline(variant, device, mode, wanted)
    # Whatever the seed: T5 reads the prompt alone.
    prompts = [Wanted(prompt, wanted.seeds[0]) for prompt in wanted.prompts]
    return compare_text(pipeline, prompts, Path(recordings), progress).model_dump(mode="json")


def steps(
    progress: Progress, variant: str, device: str, mode: str, settings: Any, recordings: str
) -> Any:
    """Job: the steps layer, against what the source's drawings recorded."""
    from fluxconv.validators.drawing import trajectories_of
    from fluxconv.validators.teacher import compare_steps

    wanted = Settings.model_validate(settings)
    pipeline, _ = _pipeline(variant, device, mode, wanted)
    chosen = trajectories_of(wanted)
    found = compare_steps(pipeline, chosen, Path(recordings), wanted.steps, progress)
    return found.model_dump(mode="json")


def draw(
    progress: Progress, variant: str, device: str, mode: str, settings: Any, folder: str
) -> Any:
    """Job: draw every picture of `settings` that `folder` lacks with the variant."""
    from fluxconv.validators.drawing import draw as draw_pictures
    from fluxconv.validators.drawing import pictures_of

    wanted = Settings.model_validate(settings)
    every = pictures_of(wanted)
    progress.start(f"Drawing {Path(variant).name}", len(every) * wanted.steps, "steps")
    pipeline, _ = _pipeline(variant, device, mode, wanted)
    draw_pictures(pipeline, every, wanted, Path(folder), progress)
    progress.finish()


def performance(progress: Progress, **request: Any) -> Any:
    """Job: the performance layer; needs a process that has done nothing else."""
    from fluxconv.validators.performance import performance as measured

    return measured(progress, **request)


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (structure, weights, source, execution, text_encoder, steps, draw, performance)
}


def _pipeline(variant: str, device: str, mode: str, settings: Settings) -> Any:
    from fluxconv.converters.checkpoint import Opening
    from fluxconv.validators.drawing import VARIANT, opened

    return opened(Opening(variant), VARIANT, device, mode, settings)


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
            with _failures(job["request"]):
                events.send({"result": JOBS[job["job"]](events, **job["request"])})
        except FluxconvError as error:
            events.send({"error": str(error)})
        except Exception as error:
            first = str(error).strip().split("\n")[0]
            events.send({"crash": f"{type(error).__name__}: {first}"})
            raise


def _failures(request: dict[str, Any]) -> AbstractContextManager[None]:
    """What torch fails in, as sentences, for jobs that run a pipeline."""
    if "mode" not in request:
        return nullcontext()
    from fluxconv.converters.modes import get_mode
    from fluxconv.validators.torch_errors import torch_errors

    path = request["opening"]["path"] if "opening" in request else request["variant"]
    return torch_errors(Path(path).name, get_mode(request["mode"]))


def _listen(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    # The parent is gone, perhaps killed: what is being worked on is of no use to anybody.
    os._exit(0)


if __name__ == "__main__":
    main()
