"""The one place that prints: for people, as JSON, or quietly. Results go to stdout, all else to
stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from fluxconv.converters.errors import FluxconvError

if TYPE_CHECKING:
    from fluxconv.commands.bars import Bars

P = ParamSpec("P")
R = TypeVar("R")


_WIDEST = 240  # columns of a table's line


class Output:
    """What a command says. `json` and `quiet` are the user's choice on the command line."""

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._told: FluxconvError | None = None

    def result(
        self,
        data: dict[str, Any],
        show: Callable[[], None],
        failed: FluxconvError | None = None,
    ) -> None:
        """The command's answer: `data` as one JSON object, or `show()` for people. If it `failed`,
        and is going to raise that, the object has the error, too: there is only one."""
        if not self.as_json:
            show()
            return
        if failed is not None:
            data = {**data, "error": _body(failed)}
            self._told = failed
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table on stdout; columns whose heading starts with `>` are numbers."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False
        )
        cells = [list(row) for row in rows]
        for number, column in enumerate(columns):
            right = column.startswith(">")
            # What stands first is a name that has to be typed: it is never cut.
            widest = 0 if number else max((len(row[0]) for row in cells), default=0)
            table.add_column(
                column.lstrip(">"), justify="right" if right else "left", min_width=widest or None
            )
        for row in cells:
            # Text, not str: a name from a checkpoint must not be read as rich's markup.
            table.add_row(*(Text(cell) for cell in row))
        # A pipe gets whole lines, never text cut to some terminal's width.
        # Nor does a terminal: lines that it wraps can be read, a column that was left out cannot.
        console = Console(width=_WIDEST, highlight=False)
        with console.capture() as text:
            console.print(table)
        lines = [line.rstrip() for line in text.get().splitlines()]
        click.echo("\n".join(line for line in lines if line))

    def line(self, text: str) -> None:
        """One line of the answer, for people."""
        click.echo(text)

    def note(self, text: str) -> None:
        """A message beside the answer."""
        if not self.quiet and not self.as_json:
            click.echo(text, err=True)

    def progress(self) -> Bars:
        """Progress bars on stderr; silent with -q."""
        from fluxconv.commands.bars import Bars

        return Bars(shown=not self.quiet)

    def error(self, error: FluxconvError) -> None:
        """One clear sentence, and the JSON object if JSON was asked for."""
        if self.as_json and error is not self._told:
            click.echo(json.dumps({"error": _body(error)}, indent=2))
        click.echo(f"fluxconv: {error}", err=True)


def _body(error: FluxconvError) -> dict[str, Any]:
    kind = type(error).__name__
    return {"type": kind, "message": str(error), "exit_code": error.exit_code, **error.details}


#: The output of the command that runs; set before its body, read when it fails.
current = Output(as_json="--json" in sys.argv, quiet=False, verbose=False)


def output_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command `--json`, `-q` and `-v`; it receives an `Output` as `out`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
    @click.option("-q", "--quiet", is_flag=True, help="Print no progress and no messages.")
    @click.option(
        "-v", "--verbose", is_flag=True, help="Show warnings of libraries, and tracebacks."
    )
    @wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, verbose: bool, **kwargs: Any) -> R:
        global current
        current = Output(as_json=as_json, quiet=quiet, verbose=verbose)
        if not verbose:
            from fluxconv.converters.libraries import hush

            hush()
        return command(*args, out=current, **kwargs)

    return wrapped


def size(nbytes: float) -> str:
    """Bytes for people, in powers of ten as disks and the Hub count them."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000 or unit == "GB":
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1000
    raise AssertionError
