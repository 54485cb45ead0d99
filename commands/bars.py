"""Progress bars, on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text


class _Amount(ProgressColumn):
    """Bytes as bytes, everything else as `3/12`."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))
        self._bytes, self._count = DownloadColumn(), MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        column = self._bytes if task.fields["unit"] == "bytes" else self._count
        return Text.assemble(column.render(task))


class _Speed(ProgressColumn):
    """Bytes a second; nothing for what is counted otherwise."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))
        self._speed = TransferSpeedColumn()

    def render(self, task: Task) -> Text:
        return self._speed.render(task) if task.fields["unit"] == "bytes" else Text()


class _Item(ProgressColumn):
    """What is being worked on, cut to what is left of the line: a bar never takes two."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["item"], style="dim", no_wrap=True, overflow="ellipsis")


class Bars:
    """The `Progress` of `fluxconv.converters.progress`, shown by rich. A context manager.

    Where nobody watches (a log, a pipe) each task is a line when it begins.
    """

    def __init__(self, *, shown: bool) -> None:
        console = Console(stderr=True)
        self._shown, self._lines = shown, not console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24),
            _Amount(),
            _Speed(),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            _Item(),
            console=console,
            disable=not shown or self._lines,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress.tasks:  # rich prints an empty line for no bars at all
            self._progress.stop()

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        if self._shown and self._lines:
            self._print(f"{task} ...")
        self._progress.start()
        self._task = self._progress.add_task(task, total=total, unit=unit, item="")

    def advance(self, amount: int, item: str = "") -> None:
        if self._task is not None:
            self._progress.update(self._task, advance=amount, item=item[-60:])

    def finish(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, item="")
            self._task = None

    def note(self, text: str) -> None:
        if self._shown:
            self._print(text)

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
