"""What backends need done once in a process before they can encode."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable

from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.progress import Progress

_WORTH_A_NOTE = 5  # seconds of preparing


def prepare(components: Iterable[ComponentPlan], device: str, progress: Progress) -> None:
    """Do it, showing progress, as compiling may take a while; say what could not be compiled."""
    todo: dict[str, Callable[[], object]] = {}
    for component in components:
        todo |= component.backend.preparations(component.tensors, device)
    if not todo:
        return
    progress.start("Preparing encoders", len(todo), "encoders")
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", RuntimeWarning)
        for name, make_ready in todo.items():
            progress.advance(0, name)
            make_ready()
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
