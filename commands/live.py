"""A run as it goes on: a table of its nodes on a terminal, lines where nobody watches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fluxconv.recipes.watching import said

if TYPE_CHECKING:
    from fluxconv.recipes.executors.base import Progressed
    from fluxconv.recipes.graph import Graph
    from fluxconv.recipes.markers import Marker

_MARKS = {
    "done": ("✓", "green"),
    "running": ("…", "cyan"),
    "failed": ("✗", "red"),
    "left out": ("–", "yellow"),
    "waiting": ("·", "dim"),
}
#: Which rows are shown first where a terminal is too low for all: those with a node at work, ...
_URGENCY = ("running", "failed", "left out", "waiting")


@dataclass
class _Task:
    """What a node at work has told of itself."""

    since: float
    name: str = ""
    done: int = 0
    total: int = 0

    @property
    def text(self) -> str:
        """For people."""
        share = f" {100 * self.done // self.total} %" if self.total else ""
        return f"{self.name or 'at work'}{share}, {time.monotonic() - self.since:.0f} s"


class Lines:
    """A `Watcher` that writes a line when a node begins or ends. A context manager."""

    def __init__(self, *, shown: bool) -> None:
        self._console = Console(stderr=True)
        self._shown = shown

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def began(self, graph: Graph) -> None:
        """See `Watcher`."""

    def changed(self, marker: Marker, *, earlier: bool) -> None:
        """See `Watcher`."""
        if marker.state == "running":
            self.note(f"{marker.id} ...")
        elif earlier and marker.state == "done":
            self.note(f"{marker.id}: done in an earlier run")
        else:
            self.note(said(marker))

    def progressed(self, event: Progressed) -> None:
        """See `Watcher`."""
        if event.event == "note":
            self.note(f"{event.id}: {event.arguments[0]}")

    def note(self, text: str) -> None:
        """See `Watcher`."""
        if self._shown:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveTable(Lines):
    """A `Watcher` that shows a row for each checkpoint and variant with the state of its nodes, and
    below it what is being done; only what went wrong, and notes, stay as lines."""

    def __init__(self) -> None:
        super().__init__(shown=True)
        self._states: dict[str, str] = {}
        self._tasks: dict[str, _Task] = {}
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def began(self, graph: Graph) -> None:
        """See `Watcher`."""
        self._states = dict.fromkeys(graph, "waiting")

    def changed(self, marker: Marker, *, earlier: bool) -> None:
        """See `Watcher`."""
        self._states[marker.id] = marker.state
        if marker.state == "running":
            self._tasks[marker.id] = _Task(time.monotonic())
            return
        self._tasks.pop(marker.id, None)
        if marker.state != "done":
            self.note(said(marker))

    def progressed(self, event: Progressed) -> None:
        """See `Watcher`."""
        super().progressed(event)
        task = self._tasks.get(event.id)
        if task is None:
            return
        if event.event == "start":
            task.name, task.done, task.total = str(event.arguments[0]), 0, int(event.arguments[1])
        elif event.event == "advance":
            task.done += int(event.arguments[0])

    def _render(self) -> Group:
        height = self._console.size.height
        tasks = [
            Text(f"{id}: {task.text}", no_wrap=True, overflow="ellipsis")
            for id, task in self._tasks.items()
        ][: height // 2]
        rows: dict[str, list[str]] = {}
        for id in self._states:
            rows.setdefault(id.partition(".")[2], []).append(id)
        # One line stays for what is hidden, one for the cursor.
        shown = self._most_urgent(rows, height - len(tasks) - 2)
        # Rows of the same nodes stand under each other, so that a name has room.
        tables: dict[tuple[str, ...], Table] = {}
        for name in shown:
            kinds = tuple(id.partition(".")[0] for id in rows[name])
            table = tables.setdefault(kinds, Table(box=None, show_header=False, pad_edge=False))
            table.add_row(
                Text(name, no_wrap=True, overflow="ellipsis"),
                *(self._cell(id) for id in rows[name]),
            )
        hidden = [name for name in rows if name not in shown]
        return Group(*tables.values(), *self._counted(hidden, rows), *tasks)

    def _most_urgent(self, rows: dict[str, list[str]], most: int) -> list[str]:
        """As many names as there is room for, in the order of the graph."""

        def urgency(name: str) -> int:
            states = {self._states[id] for id in rows[name]}
            return next((n for n, state in enumerate(_URGENCY) if state in states), len(_URGENCY))

        chosen = set(sorted(rows, key=urgency)[: max(1, most)])
        return [name for name in rows if name in chosen]

    def _counted(self, names: list[str], rows: dict[str, list[str]]) -> list[Text]:
        """A line about the rows for which there is no room."""
        if not names:
            return []
        over = sum({self._states[id] for id in rows[name]} == {"done"} for name in names)
        done = f", {over} with all done" if over else ""
        return [Text(f"and {len(names)} more{done}", style="dim")]

    def _cell(self, id: str) -> Text:
        mark, style = _MARKS[self._states[id]]
        return Text(f"{mark} {id.partition('.')[0]}", style=style, no_wrap=True)
