"""How a run stands: from its markers alone, on the command line and as the rehearsal Hub's page."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import chromium
from click.testing import CliRunner

from fluxconv.commands.main import cli
from fluxconv.converters.errors import BadInput
from fluxconv.hub.rehearsal.pages import owner_address
from fluxconv.recipes import status
from fluxconv.recipes.markers import Driver, Marker, Markers, RunRecord

HOSTILE = "<script>alert(1)</script>\u202e.yaml"
NODES = (
    Marker("fetch.x", "done", seconds=1.5, peak_memory=400_000_000, host="here", pid=1, attempts=1),
    Marker("quantize.x", "running", started=1.0, host="here", pid=1, attempts=2),
    Marker("validate.x-a", "failed", seconds=3.25, why="<b>too far off</b>"),
    Marker("card.x-a", "left out", why="validate.x-a failed"),
    Marker("publish.release", "waiting"),
)


def leave(output: Path, driver: Driver, ended: float | None = None) -> Path:
    """What a run with these nodes leaves on the disk."""
    markers = Markers(output)
    with markers.locked():
        for node in NODES:
            markers.write(node)
        nodes = {node.id: () for node in NODES}
        markers.write_run(RunRecord(HOSTILE, "local", driver, nodes, 1e9, ended))
    return output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A run that this process seems to drive."""
    return leave(tmp_path / "out", Driver.this())


def test_running_ended_and_died_are_told_apart(output: Path) -> None:
    found = status(output)
    assert found.state == "running" and found.nodes == NODES
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave(output, replace(Driver.this(), pid=gone.pid))
    assert status(output).state == "died"
    # The number is somebody else's now.
    leave(output, replace(Driver.this(), born="1"))
    assert status(output).state == "died"
    # Of another machine nothing is known.
    leave(output, replace(Driver.this(), host="elsewhere", pid=gone.pid))
    assert status(output).state == "running"
    leave(output, Driver.this(), ended=1e9 + 60)
    found = status(output)
    assert (found.state, found.seconds) == ("failed", 60)
    assert {node.id: node.state for node in found.nodes}["quantize.x"] == "waiting"


def test_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no run"):
        status(tmp_path)
    (tmp_path / ".fluxconv-run").mkdir()
    for text in ("", "{}", '{"driver": 1}', "[" * 10000):
        (tmp_path / ".fluxconv-run" / "run.json").write_text(text)
        with pytest.raises(BadInput, match="holds no run"):
            status(tmp_path)


def test_command_shows_it(output: Path) -> None:
    shown = CliRunner().invoke(cli, ["status", str(output)], catch_exceptions=False)
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert any("fetch.x" in line and "1.5" in line and "400.00 MB" in line for line in lines)
    assert "card.x-a: validate.x-a failed" in lines
    told = CliRunner().invoke(cli, ["status", str(output), "--json"], catch_exceptions=False)
    data = json.loads(told.output)
    assert data["state"] == "running"
    assert [node["id"] for node in data["nodes"]] == [node.id for node in NODES]
    keys = {"id", "kind", "state", "seconds", "peak_memory", "why", "attempts", "host", "pid"}
    assert all(keys <= node.keys() for node in data["nodes"])


class Served:
    """A rehearsal Hub with the page of a run, as the command starts it."""

    def __init__(self, folder: Path, output: Path) -> None:
        self._folder = folder / "hub"
        ready = folder / "ready"
        words = ["hub", "serve", str(self._folder), "--ready-file", str(ready), "--run"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fluxconv.commands", *words, str(output)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not ready.is_file() and self.process.poll() is None:
            time.sleep(0.05)
        found = re.search(r"HF_ENDPOINT=(\S+)", ready.read_text())
        assert found
        self.url = found[1]

    @property
    def owner(self) -> str:
        """The address that signs a browser in."""
        return owner_address(self._folder, self.url)


@pytest.fixture
def served(tmp_path: Path, output: Path) -> Iterator[Served]:
    found = Served(tmp_path, output)
    yield found
    found.process.terminate()
    found.process.wait()


def test_page_is_for_the_owner_alone_and_takes_nothing_for_markup(
    served: Served, output: Path
) -> None:
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(cookies)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        browser.open(f"{served.url}/-/run")
    assert "/-/run" in browser.open(served.owner).read().decode()
    page = browser.open(f"{served.url}/-/run").read().decode()
    assert "&lt;script&gt;" in page and "<script" not in page and "<b>too" not in page
    assert "\u202e" not in page and 'http-equiv="refresh"' in page
    for word in ("quantize", "running", "at try 2", "1.5 s", "400", "left out"):
        assert word in page
    leave(output, Driver.this(), ended=1e9 + 5)
    page = browser.open(f"{served.url}/-/run").read().decode()
    assert "failed" in page and 'http-equiv="refresh"' not in page
    (output / ".fluxconv-run" / "run.json").unlink()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        browser.open(f"{served.url}/-/run")


@pytest.mark.parametrize("width", [1280, 360])
def test_page_in_a_browser(served: Served, width: int) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 800})
        noticed: list[str] = []
        page.on("console", lambda message: noticed.append(message.text))
        page.goto(served.owner)
        page.get_by_role("link", name="run of a recipe").click()
        assert page.locator("h1").inner_text().startswith("<script>")
        assert page.locator("tbody tr:not(.group)").count() == len(NODES)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert noticed == []


def test_run_that_ends_on_a_full_disk_has_not_died(output: Path) -> None:
    limited = f"""
import resource, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = {sys.path!r}
from fluxconv.converters.errors import DiskFull
from fluxconv.recipes.markers import Markers
markers = Markers(Path({str(output)!r}))
record = markers.read_run()
size = (markers.folder / "run.json").stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    markers.write_run(replace(record, recipe="long" * 20))
except DiskFull:
    markers.write_run(replace(record, ended=1e9 + 60.123456))
"""
    done = subprocess.run([sys.executable, "-c", limited], env=os.environ)
    assert done.returncode == 0
    found = status(output)
    assert (found.state, found.recipe) == ("failed", HOSTILE)
    assert found.seconds == pytest.approx(60.123456)
    assert {node.why for node in found.nodes if node.id == "quantize.x"} == {
        "was at work when the run ended"
    }


def test_markers_are_whole_or_old_on_a_full_disk(tmp_path: Path) -> None:
    markers = Markers(tmp_path)
    with markers.locked():
        markers.write(NODES[0])
        limited = f"""
import resource, signal, sys
from pathlib import Path
from dataclasses import replace
sys.path[:0] = {sys.path!r}
from fluxconv.recipes.markers import Marker, Markers
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
Markers(Path({str(tmp_path)!r})).write(Marker("fetch.x", "failed", why="x" * 1000))
"""
        done = subprocess.run([sys.executable, "-c", limited], env=os.environ)
        assert done.returncode == 0
        assert markers.read("fetch.x") == NODES[0]
        assert [each.name for each in (tmp_path / ".fluxconv-run" / "nodes").iterdir()] == [
            "fetch.x.json"
        ]
