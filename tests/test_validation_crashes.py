"""A validation that crashes, is killed or meets another leaves a sentence and a whole report."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from validating import SAFETENSORS

from fluxconv.converters import Variant
from fluxconv.converters.errors import BadInput
from fluxconv.converters.progress import Silent
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.report import IMAGES, REPORT_NAME
from fluxconv.validators.staging import staged_report


class Assassin(Silent):
    """Kills the worker at the first progress it makes."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def advance(self, amount: int, item: str = "") -> None:
        if self._worker.pid:
            os.kill(self._worker.pid, signal.SIGKILL)


def test_killed_worker_is_a_sentence_and_the_next_job_gets_a_new_one(
    tiny_variants: dict[str, Variant],
) -> None:
    request = {"variant": str(tiny_variants[SAFETENSORS].root)}
    with Worker() as worker:
        with pytest.raises(LayerFailed, match="ended by SIGKILL"):
            worker.run("structure", request, Assassin(worker))
        assert worker.run("structure", request, Silent())["problems"] == []


def test_crash_in_a_worker_is_a_sentence() -> None:
    with Worker() as worker, pytest.raises(LayerFailed, match="failed unexpectedly: TypeError"):
        worker.run("structure", {"nonsense": 1}, Silent())


def test_failed_run_leaves_the_old_report(tmp_path: Path) -> None:
    (tmp_path / REPORT_NAME).write_text("old")
    with pytest.raises(KeyboardInterrupt), staged_report(tmp_path) as folder:
        (folder / REPORT_NAME).write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [REPORT_NAME]
    assert (tmp_path / REPORT_NAME).read_text() == "old"


@pytest.mark.parametrize("survived", range(4))
def test_kill_at_any_step_leaves_no_mixture(
    survived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(folder: Path, what: str) -> None:
        (folder / IMAGES).mkdir(exist_ok=True)
        (folder / IMAGES / "a.png").write_text(what)
        (folder / REPORT_NAME).write_text(what)

    report(tmp_path, "old")
    left = [survived]

    def dying(name: str) -> None:
        true = getattr(Path, name)

        def step(path: Path, *args: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise SystemExit("killed")
            left[0] -= 1
            return true(path, *args, **options)

        monkeypatch.setattr(Path, name, step)

    with pytest.raises(SystemExit), staged_report(tmp_path) as folder:
        report(folder, "new")
        dying("rename")
        dying("unlink")
    found = tmp_path / REPORT_NAME
    if found.exists():
        assert found.read_text() == (tmp_path / IMAGES / "a.png").read_text()
    monkeypatch.undo()
    with staged_report(tmp_path) as folder:
        report(folder, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [IMAGES, REPORT_NAME]
    assert (tmp_path / IMAGES / "a.png").read_text() == found.read_text() == "new"


def test_two_runs_on_one_variant_are_refused(tmp_path: Path) -> None:
    with staged_report(tmp_path) as folder:
        with pytest.raises(BadInput, match="another run is validating it"), staged_report(tmp_path):
            pass
        (folder / REPORT_NAME).write_text("first")
    assert (tmp_path / REPORT_NAME).read_text() == "first"
