"""Who looks on while a release is made."""

from __future__ import annotations

from typing import Protocol

from fluxconv.converters.progress import Progress
from fluxconv.recipes.executors.base import Progressed
from fluxconv.recipes.graph import Graph
from fluxconv.recipes.markers import Marker


class Watcher(Protocol):
    """Is told what happens in a run, in the thread that drives it."""

    def began(self, graph: Graph) -> None:
        """The run begins; nothing is known of its nodes yet."""

    def changed(self, marker: Marker, *, earlier: bool) -> None:
        """A node began or came to its end; `earlier` if it was done in an earlier run."""

    def progressed(self, event: Progressed) -> None:
        """A node at work tells of its progress."""

    def note(self, text: str) -> None:
        """A sentence that the user should read."""


class ProgressWatcher:
    """Shows a run as one task of a `Progress`, counted in nodes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def began(self, graph: Graph) -> None:
        self._progress.start("Release", len(graph), "nodes")

    def changed(self, marker: Marker, *, earlier: bool) -> None:
        if marker.state == "running":
            return
        self._progress.advance(1, marker.id)
        if marker.state != "done":
            self._progress.note(said(marker))

    def progressed(self, event: Progressed) -> None:
        if event.event == "note":
            self._progress.note(f"{event.id}: {event.arguments[0]}")

    def note(self, text: str) -> None:
        self._progress.note(text)


def said(marker: Marker) -> str:
    """A node's state as a line."""
    seconds = "" if marker.seconds is None else f" in {marker.seconds:.1f} s"
    if marker.state == "done":
        return f"{marker.id}: done{seconds}"
    return f"{marker.id}: {marker.state}" + (f": {marker.why}" if marker.why else "")
