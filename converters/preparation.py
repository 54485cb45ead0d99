"""What backends need done once in a process before they can encode."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable

from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.preparing import called_beside
from fluxconv.converters.progress import Progress
from fluxconv.converters.threads import cores

_WORTH_A_NOTE = 5  # seconds of preparing
_WORTH_HELP = 2  # seconds that the first one took: it was not in the cache, nor will the others be


def prepare(components: Iterable[ComponentPlan], device: str, progress: Progress) -> None:
    """Do it, showing progress, as compiling may take a while; say what could not be compiled."""
    todo: dict[str, Callable[[], object]] = {}
    for component in components:
        todo |= component.backend.preparations(component.tensors, device)
    if not todo:
        return
    progress.start("Preparing encoders", len(todo), "encoders")
    start = time.monotonic()
    ahead = 0  # how many were made beside us, and have been counted
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", RuntimeWarning)
        for number, (name, make_ready) in enumerate(todo.items(), 1):
            progress.advance(0, name)
            began = time.monotonic()
            make_ready()
            if number > ahead:
                progress.advance(1, name)
            others = list(todo.values())[number:]
            slow = time.monotonic() - began > _WORTH_HELP and not said
            if slow and device == "cpu" and cores() > 1 and len(others) > 1 and not ahead:
                ahead = number
                for _ in called_beside(others):
                    ahead += 1
                    progress.advance(1, name)
    progress.finish()
    complaints = [str(each.message) for each in said if each.category is RuntimeWarning]
    for text in complaints:
        progress.note(text)
    seconds = time.monotonic() - start
    if seconds > _WORTH_A_NOTE and not complaints:
        encoders = "1 encoder" if len(todo) == 1 else f"{len(todo)} encoders"
        progress.note(
            f"Preparing {encoders} took {seconds:.0f} s; what was compiled is kept for next time"
        )
