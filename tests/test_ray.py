"""A release on a Ray cluster of several nodes: the bytes of this machine, whoever is killed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_cluster import ancestor, at_work, cluster, drive, ended, release, request
from test_resuming import files_of

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.errors import BadInput, MissingRequirement, NotEnoughMemory
from fluxconv.recipes.executors import open_executor
from fluxconv.recipes.executors.base import (
    Ended,
    Event,
    Lost,
    Progressed,
    Started,
    library_versions,
)
from fluxconv.recipes.executors.ray import RayExecutor, import_ray
from fluxconv.recipes.executors.ray_agent import TOKEN
from fluxconv.recipes.graph import Node, Resources

pytestmark = pytest.mark.slow

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

#: Enough of them that a part takes a while.
BACKENDS = ["bnb-nf4", "bnb-fp4", "gguf-q2_k", "gguf-q3_k_s", "gguf-q4_k_m", "gguf-q8_0"]
BACKENDS += ["quanto-int4", "quanto-int8", "torchao-int8", "torchao-fp8", "fp8-layerwise"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of one core, whose workers may be killed."""
    with cluster(2) as found:
        yield found


@pytest.fixture
def executor(nodes: Any) -> Iterator[RayExecutor]:
    with RayExecutor(address=nodes.address) as found:
        yield found


def check(output: Path, variants: dict[str, Variant]) -> None:
    for name in BACKENDS:
        variant = variants[name]
        assert files_of(output / variant.name) == files_of(variant.root)
    there = {path.name for path in output.iterdir() if path.name != TOKEN.parent.name}
    assert there == {variants[name].name for name in BACKENDS}


def test_the_bytes_are_those_of_this_machine_whoever_is_killed(
    executor: RayExecutor,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The worker, and not only the process that it started, is killed in the middle of a part. Of
    what Ray has to say of it, nothing gets among what a command prints."""
    capfd.readouterr()
    killed: list[psutil.Process] = []

    def watch() -> None:
        found = None if killed else at_work(tmp_path)
        if found is not None:
            worker = ancestor(found, "ray::")
            worker.kill()
            killed.extend([worker, found])

    driven = drive(executor, release(tiny_checkpoint.root, BACKENDS, 3), tmp_path, watch)
    assert killed
    assert [event.id.partition(".")[0] for event in driven.lost] == ["part"], driven.lost
    assert capfd.readouterr().out == ""
    assert not any(process.is_running() for process in killed)
    check(tmp_path, tiny_variants)
    assert any(isinstance(event, Progressed) for event in driven.events)
    hosts = {event.host for event in driven.events if isinstance(event, Started)}
    assert hosts == {os.uname().nodename}


def test_a_whole_node_is_killed(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """Every process of it at once, as when a machine is gone."""
    killed: list[psutil.Process] = []

    def watch() -> None:
        found = None if killed else at_work(tmp_path)
        if found is not None:
            raylet = ancestor(found, "raylet")
            killed.extend([raylet, *raylet.children(recursive=True)])
            for process in killed:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    with cluster(2) as nodes, RayExecutor(address=nodes.address) as executor:
        driven = drive(executor, release(tiny_checkpoint.root, BACKENDS, 4), tmp_path, watch)
        alive = [each for each in import_ray().nodes() if each["Alive"]]
    assert killed
    assert driven.lost
    assert len(alive) == 2  # the head, and the node that was left
    assert not any(process.is_running() for process in killed)
    check(tmp_path, tiny_variants)


def fetch(checkpoint: Checkpoint) -> Node:
    return release(checkpoint.root, ["bnb-nf4"], 1)["fetch.tiny"]


def test_a_worker_with_other_libraries_is_refused(
    executor: RayExecutor, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    versions = library_versions() | {"gguf": "9.9"}
    executor.submit(request(fetch(tiny_checkpoint), tmp_path, {}, versions=versions))
    event, _ = ended(executor)
    assert isinstance(event, Ended)
    assert event.outcome.problem
    assert event.outcome.problem.type == MissingRequirement.__name__
    assert "the driver has 9.9" in event.outcome.problem.message


def test_an_output_that_is_another_folder_there_is_refused(
    executor: RayExecutor, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    executor._token(str(tmp_path))
    (tmp_path / TOKEN).write_text("that of another machine")
    executor.submit(request(fetch(tiny_checkpoint), tmp_path, {}))
    event, _ = ended(executor)
    assert isinstance(event, Ended)
    assert event.outcome.problem
    assert event.outcome.problem.type == BadInput.__name__
    assert "all machines share" in event.outcome.problem.message


def test_what_no_machine_could_take_fails_at_once(
    executor: RayExecutor, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for wants, kind in (
        (Resources(memory=1 << 50), NotEnoughMemory),
        (Resources(gpus=1), MissingRequirement),
    ):
        node = replace(fetch(tiny_checkpoint), resources=wants)
        executor.submit(request(node, tmp_path, {}))
        event = executor.next(1)
        assert isinstance(event, Ended)
        assert event.outcome.problem
        assert event.outcome.problem.type == kind.__name__


@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_cancelled_ends(
    at_once: bool, executor: RayExecutor, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    graph = release(tiny_checkpoint.root, BACKENDS, 1)
    executor.submit(request(graph["fetch.tiny"], tmp_path, {}))
    event, _ = ended(executor)
    assert isinstance(event, Ended)
    assert event.outcome.result
    results = {"fetch.tiny": event.outcome.result}
    executor.submit(request(graph["part.0"], tmp_path, results))
    found, before = None, list[Event]()
    while found is None:
        event = executor.next(0.1)
        before += [event] if event else []
        assert not isinstance(event, Ended | Lost)
        found = at_work(tmp_path)
    executor.cancel(at_once=at_once)
    if not at_once:
        event, _ = ended(executor, 90)
        assert event is not None
    gone = time.monotonic() + 60
    while found.is_running() and found.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < gone
        time.sleep(0.1)


def test_nothing_is_told_to_anybody(nodes: Any) -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    raylets = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "raylet"]
    ours = [each for each in raylets if os.getpid() in [p.pid for p in each.parents()]]
    assert ours
    for raylet in ours:
        assert raylet.environ()["RAY_USAGE_STATS_ENABLED"] == "0"


def test_without_ray_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingRequirement, match=r"pip install 'fluxconv\[ray\]'") as caught:
        open_executor("ray", device="cpu")
    assert caught.value.exit_code == 4


def test_without_a_cluster_it_is_one_sentence() -> None:
    with pytest.raises(MissingRequirement, match="ray start --head"):
        RayExecutor(address="127.0.0.1:1").__enter__()
    with pytest.raises(MissingRequirement, match="Ray's client"):
        RayExecutor(address="ray://127.0.0.1:10001")
