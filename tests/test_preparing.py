"""Encoders that have to be compiled first are compiled side by side."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from fluxconv.converters import preparation
from fluxconv.converters.preparation import prepare
from fluxconv.converters.preparing import called_beside
from fluxconv.converters.progress import Silent
from fluxconv.converters.threads import LIMIT


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module is, in the processes that are started; there are three cores."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv(LIMIT, "3")
    monkeypatch.setattr("fluxconv.converters.threads.os.sched_getaffinity", lambda _: set(range(8)))


def mark(place: Path, seconds: float = 0) -> None:
    """Leaves the number of the process that called it."""
    time.sleep(seconds)
    with place.open("a") as file:
        file.write(f"{os.getpid()}\n")


def marked(folder: Path) -> dict[str, list[str]]:
    return {place.name: place.read_text().split() for place in folder.iterdir()}


def test_all_are_called_once_by_processes_of_their_own(tmp_path: Path) -> None:
    names = [str(number) for number in range(7)]
    assert len(list(called_beside([partial(mark, tmp_path / name) for name in names]))) == 7
    found = marked(tmp_path)
    assert sorted(found) == names and all(len(pids) == 1 for pids in found.values())
    assert len({pids[0] for pids in found.values()}) == 3


@pytest.mark.parametrize(
    "harm", [partial(int, "no number"), partial(os._exit, 3), partial(os.abort)]
)
def test_one_that_fails_takes_no_other_process_with_it(tmp_path: Path, harm: partial[None]) -> None:
    work = [harm, *(partial(mark, tmp_path / str(number)) for number in range(5))]
    assert len(list(called_beside(work))) == len(marked(tmp_path)) == 4


def test_what_cannot_be_handed_on_is_left_to_who_asked(tmp_path: Path) -> None:
    assert list(called_beside([lambda: mark(tmp_path / "a"), lambda: mark(tmp_path / "b")])) == []
    assert marked(tmp_path) == {}


def test_nobody_works_on_for_one_who_went_away(tmp_path: Path) -> None:
    script = f"""
import os, sys
from functools import partial
from pathlib import Path
from test_preparing import mark
from fluxconv.converters.preparing import called_beside
work = [partial(mark, Path({str(tmp_path)!r}, str(number)), 0.5) for number in range(60)]
for _ in called_beside(work):
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "FLUXCONV_CORES": "2"})
    assert done.returncode == -9
    time.sleep(1)
    before = len(marked(tmp_path))
    time.sleep(1)
    assert len(marked(tmp_path)) == before < 60


def test_help_comes_where_the_first_was_slow_and_every_one_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "_WORTH_HELP", 0.2)
    todo = {str(n): partial(mark, tmp_path / str(n), 0.3 if n == 2 else 0) for n in range(6)}
    backend = SimpleNamespace(preparations=lambda tensors, device: todo)

    class Counted(Silent):
        done = 0

        def advance(self, amount: int, item: str = "") -> None:
            self.done += amount

    seen = Counted()
    prepare([SimpleNamespace(backend=backend, tensors=())], "cpu", seen)  # type: ignore[list-item]
    found = marked(tmp_path)
    ours = str(os.getpid())
    # The process that asked calls all of them itself, and finds what was made.
    assert all(ours in pids for pids in found.values())
    assert {name for name, pids in found.items() if len(pids) == 2} == {"3", "4", "5"}
    assert seen.done == 6
