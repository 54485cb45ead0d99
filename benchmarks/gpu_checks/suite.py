"""The tests on a GPU: every backend against its library, and all that was written without one."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.backends import all_backends
from gpu_checks.setting import ROOT, Setting, first_line, heading, row

#: What the table shows for each backend: a column, and the test that tells.
COLUMNS = {
    "files equal to the library's": "test_files_equal_save_pretrained",
    "same output after a reload": "test_reloads_and_computes_what_the_library_quantized",
}
SMALL = ("test_equal_to_library.py", "test_reload.py")
WORKERS = 8


@dataclass(frozen=True)
class Outcome:
    """How one test ended; `why` it was skipped or failed."""

    test: str
    name: str
    state: str
    why: str = ""


@click.command("tests")
@click.option("--select", help="pytest's -m: which tests [all that are not slow].")
@click.argument("files", nargs=-1)
@click.pass_obj
def suite(setting: Setting, select: str | None, files: tuple[str, ...]) -> None:
    """The project's tests (or those in FILES), and what they say of each backend."""
    chosen = files or (SMALL if setting.small else ())
    with setting.work() as work:
        outcomes = run(work, select or "not slow", chosen)
    by_name = {outcome.name: outcome for outcome in outcomes}
    heading("backend", *(f"{c}: {part}" for c in COLUMNS for part in ARCHITECTURES))
    for backend in all_backends():
        names = (f"{test}[{backend}-{part}]" for test in COLUMNS.values() for part in ARCHITECTURES)
        row(f"`{backend}`", *(cell(by_name.get(name)) for name in names))
    counts = Counter(outcome.state for outcome in outcomes)
    click.echo(f"\nTests: {', '.join(f'{count} {state}' for state, count in counts.items())}.")
    listing(outcomes, "FAILED")
    listing(outcomes, "skipped")
    sys.exit(int(counts["FAILED"] > 0))


def run(work: Path, select: str, files: tuple[str, ...]) -> list[Outcome]:
    """Run the tests in processes side by side where pytest-xdist is there, and read its report."""
    report = work / "tests.xml"
    chosen = [str(ROOT / "tests" / name) for name in files]
    command = [sys.executable, "-m", "pytest", "-q", "-m", select, f"--junitxml={report}", *chosen]
    cores = os.cpu_count() or 1
    workers = min(WORKERS, cores)
    environment = dict(os.environ)
    if find_spec("xdist") and workers > 1:
        command += ["-n", str(workers), "--dist", "loadfile"]
        environment["OMP_NUM_THREADS"] = str(cores // workers)
    # What pytest says of failures is not for the tables.
    subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr)
    if not report.is_file():
        raise click.ClickException("the tests could not be run")
    return [_outcome(case) for case in ElementTree.parse(report).iter("testcase")]


def _outcome(case: ElementTree.Element) -> Outcome:
    name = case.get("name", "")
    test = f"{case.get('classname', '').rpartition('.')[2]}::{name}"
    for tag, state in (("failure", "FAILED"), ("error", "FAILED"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            return Outcome(test, name, state, first_line(found.get("message", "")))
    return Outcome(test, name, "passed")


def cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not tested"
    return {"passed": "yes", "skipped": outcome.why}.get(outcome.state, outcome.state)


def listing(outcomes: list[Outcome], state: str) -> None:
    """Every test that ended in `state`, and why."""
    found = [outcome for outcome in outcomes if outcome.state == state]
    if found:
        click.echo()
        heading(state, "why")
        for outcome in found:
            row(f"`{outcome.test}`", outcome.why)
