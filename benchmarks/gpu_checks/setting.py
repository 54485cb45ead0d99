"""What the checks share: where and on what they run, and how they print."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"
TINY_FLUX = TESTS / "checkpoints" / "tiny-flux"
SYNTHETIC = TESTS / "checkpoints" / "synthetic.py"


@dataclass(frozen=True)
class Setting:
    """The options of `gpu.py`."""

    device: str
    small: bool
    folder: Path | None

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A folder to work in, gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="fluxconv-gpu-") as name:
            yield Path(name)


def heading(*columns: str) -> None:
    """Begin a table."""
    row(*columns)
    click.echo("|" + "---|" * len(columns))


def row(*cells: str) -> None:
    """One line of a table, on the screen at once."""
    click.echo(f"| {' | '.join(cells)} |")


def first_line(error: BaseException | str) -> str:
    """What an error says, fit for a cell of a table."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].replace("|", "\\|")[:200]
