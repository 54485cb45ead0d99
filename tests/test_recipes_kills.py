"""Whatever is killed, and whenever: the run goes on, or the next one does, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from releases import BACKEND, VARIANT, Seen, marker, write_recipe

from fluxconv.converters import open_variant
from fluxconv.converters.errors import DiskFull
from fluxconv.converters.progress import Silent
from fluxconv.converters.variant import hash_file
from fluxconv.recipes import run, status
from fluxconv.recipes.executors.base import Progressed

NODES = (
    "quantize.tiny-flux",
    "reference.tiny-flux",
    f"validate.{VARIANT}",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release that was made in peace."""
    folder = tmp_path_factory.mktemp("made")
    run(write_recipe(folder)).require()
    return folder


def same_variant(one: Path, other: Path) -> bool:
    """Whether two releases hold the same variant, every byte of it."""
    manifests = [hash_file(each / "out" / VARIANT / "fluxconv.json") for each in (one, other)]
    open_variant(other / "out" / VARIANT).check_hashes(Silent())
    return manifests[0] == manifests[1]


def kills(output: Path, id: str, times: int) -> Seen:
    """Ends the worker of a node with SIGKILL at its first words, so many times."""
    killed: list[int] = []

    def kill(event: Progressed) -> None:
        pid = marker(output, id).get("pid")
        if event.id == id and len(killed) < times and pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    return Seen(kill)


@pytest.mark.parametrize("id", NODES)
def test_killed_worker_is_noticed_and_its_node_tried_once_more(
    id: str, tmp_path: Path, first: Path
) -> None:
    seen = kills(tmp_path / "out", id, times=1)
    done = run(write_recipe(tmp_path), watcher=seen)
    done.require()
    assert done.markers[id].attempts == 2
    assert any("SIGKILL" in note and "tried once more" in note for note in seen.notes)
    assert same_variant(first, tmp_path)


def test_worker_killed_twice_fails_its_node_and_leaves_out_the_rest(tmp_path: Path) -> None:
    id = "reference.tiny-flux"
    done = run(write_recipe(tmp_path), watcher=kills(tmp_path / "out", id, times=2))
    ends = {id: marker.state for id, marker in done.markers.items()}
    assert ends[id] == "failed" and "SIGKILL" in str(done.markers[id].why)
    assert ends["quantize.tiny-flux"] == "done" and ends[f"validate.{VARIANT}"] == "left out"
    run(write_recipe(tmp_path)).require()


class Driven:
    """`fluxconv run` in a process of its own; its recipe is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "out"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fluxconv.commands", "run", str(write_recipe(folder))],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, id: str) -> int:
        """The worker that has begun to do the node."""
        until = time.monotonic() + 300
        while time.monotonic() < until and self.process.poll() is None:
            found = marker(self.output, id)
            if found.get("state") == "running":
                return int(found["pid"])
            time.sleep(0.01)
        raise AssertionError(f"{id} never began: {self.process.communicate()[1]}")


def is_gone(pid: int) -> bool:
    """Whether the process has ended by itself, some seconds from now at the latest."""
    for _ in range(200):
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if text.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("id", NODES)
def test_killed_driver_leaves_nothing_behind_and_the_next_run_goes_on(
    id: str, tmp_path: Path, first: Path
) -> None:
    driven = Driven(tmp_path)
    worker = driven.wait_for(id)
    driven.process.kill()
    driven.process.wait()
    found = status(driven.output)
    assert found.state == "died" and found.seconds is None
    assert "running" not in {node.state for node in found.nodes}
    assert is_gone(worker)
    before = {node.id for node in found.nodes if node.state == "done"}
    done = run(write_recipe(tmp_path))
    done.require()
    assert not before & set(done.done_now)
    assert same_variant(first, tmp_path)


def test_ctrl_c_stops_in_order_and_the_next_run_goes_on(tmp_path: Path, first: Path) -> None:
    driven = Driven(tmp_path)
    worker = driven.wait_for(f"validate.{VARIANT}")
    driven.process.send_signal(signal.SIGINT)
    _, said = driven.process.communicate(timeout=120)
    assert driven.process.returncode == 130
    assert "press Ctrl-C again" in said and "run the same recipe again to go on" in said
    assert "Traceback" not in said
    assert is_gone(worker)
    found = status(driven.output)
    assert found.state == "stopped"
    assert {node.id: node.state for node in found.nodes}[f"validate.{VARIANT}"] == "waiting"
    run(write_recipe(tmp_path)).require()
    assert same_variant(first, tmp_path)


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    driven = Driven(tmp_path)
    worker = driven.wait_for("quantize.tiny-flux")
    # Stopped, it hears of the first one no more.
    os.kill(worker, signal.SIGSTOP)
    driven.process.send_signal(signal.SIGINT)
    assert driven.process.stderr
    for line in driven.process.stderr:
        if "press Ctrl-C again" in line:
            break
    assert driven.process.poll() is None
    driven.process.send_signal(signal.SIGINT)
    driven.process.communicate(timeout=30)
    assert driven.process.returncode == 130
    assert is_gone(worker)
    assert status(driven.output).state == "stopped"


def test_full_disk_lets_the_rest_be_done_and_the_next_run_goes_on(
    tmp_path: Path, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files may not grow beyond a limit, which the kernel reports as it reports a full disk."""
    recipe = write_recipe(tmp_path, backends=[BACKEND, "gguf-q8_0"])
    largest = max(
        path.stat().st_size for path in (first / "out" / VARIANT / "transformer").iterdir()
    )
    limited = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({largest // 2}, resource.RLIM_INFINITY))
from fluxconv.commands.main import run
sys.exit(run(["run", {str(recipe)!r}, "--json", "-q"]))
"""
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert done.returncode == DiskFull.exit_code, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("fluxconv: ")]
    assert "no room left" in said
    ends = {node.id: node.state for node in status(tmp_path / "out").nodes}
    assert ends["quantize.tiny-flux"] == "waiting" and ends["reference.tiny-flux"] == "done"
    assert {ends[id] for id in ends if id.startswith(("validate", "card"))} == {"waiting"}
    run(recipe).require()
    assert same_variant(first, tmp_path)
