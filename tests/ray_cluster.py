"""A real Ray cluster of several node processes on this machine, and a release driven on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fluxconv.recipes.executors.base import (
    Ended,
    Event,
    Executor,
    Lost,
    Request,
    Started,
    library_versions,
)
from fluxconv.recipes.executors.ray import RayExecutor, import_ray
from fluxconv.recipes.graph import Graph, Node, Resources

#: Bytes; what goes through Ray is small, and this is the least that it takes.
_STORE = 80 << 20


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """A head without work, and so many nodes of one core each."""
    import_ray()
    from ray.cluster_utils import Cluster

    shared = {"object_store_memory": _STORE, "include_dashboard": False, "memory": 4 << 30}
    # Else nodes kill workers while others use up the memory of this machine.
    patient = {"_system_config": {"memory_monitor_refresh_ms": 0}}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **shared, **patient})
    try:
        for _ in range(nodes):
            found.add_node(num_cpus=1, **shared)
        found.wait_for_nodes()
        yield found
    finally:
        found.shutdown()


def release(source: Path, backends: list[str], parts: int) -> Graph:
    """A checkpoint, fetched and quantized in parts."""
    rows = [{"name": name, "options": {}} for name in backends]
    arguments = {"backends": rows, "components": [], "device": "cpu", "parts": parts}
    where = {"id": str(source), "base": None, "revision": None, "source_id": None}
    fetch = Node("fetch.tiny", "fetch", {**where, "allow_requantize": False})
    taking = Resources(memory=1 << 30)
    each = [
        Node(f"part.{n}", "part", {**arguments, "part": n}, (fetch.id,), resources=taking)
        for n in range(parts)
    ]
    names = tuple(node.id for node in each)
    last = Node("assemble.tiny", "assemble", arguments, (fetch.id, *names), resources=taking)
    return Graph([fetch, *each, last])


@dataclass
class Driven:
    """What came out of a graph: the results, and everything that was lost on the way."""

    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def drive(
    executor: Executor,
    graph: Graph,
    output: Path | str,
    watch: Callable[[], object] = lambda: None,
    seconds: float = 600,
) -> Driven:
    """Do a graph, with what is lost done again; `watch` is called between two events."""
    found, submitted = Driven(), set[str]()
    until = time.monotonic() + seconds
    while len(found.results) < len(graph):
        assert time.monotonic() < until, f"only {list(found.results)} ended"
        for node in graph.values():
            if node.id not in submitted and all(id in found.results for id in node.before):
                submitted.add(node.id)
                executor.submit(request(node, output, found.results))
        event = executor.next(0.1)
        watch()
        if event is None:
            continue
        found.events.append(event)
        if isinstance(event, Lost):
            found.lost.append(event)
            submitted.discard(event.id)
        elif isinstance(event, Ended):
            assert event.outcome.result is not None, event.outcome.problem
            found.results[event.id] = event.outcome.result
    return found


def request(
    node: Node, output: Path | str, results: Mapping[str, Mapping[str, Any]], **other: Any
) -> Request:
    inputs = {id: results[id] for id in node.before}
    return Request(node, inputs, str(output), other.get("versions", library_versions()))


def ended(executor: RayExecutor, seconds: float = 300) -> tuple[Event | None, list[Event]]:
    """The end of the one node that was submitted, and what came before it."""
    before: list[Event] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        event = executor.next(0.2)
        if isinstance(event, Ended | Lost):
            return event, before
        if event is not None:
            before.append(event)
    return None, before


def at_work(output: Path, weights: int = 5) -> psutil.Process | None:
    """A process in the middle of a part: its journal names some weights, and is not complete."""
    for path in output.glob(".*.partial/.journal-part-*"):
        text = path.read_text()
        if text.count('"done"') < weights or '"synced"' in text:
            continue
        try:
            return psutil.Process(int(path.name.split("-")[-2]))
        except psutil.NoSuchProcess:
            continue
    return None


def ancestor(process: psutil.Process, name: str) -> psutil.Process:
    """The process above it whose command line begins with, or is called, `name`."""
    for each in process.parents():
        if name in each.name() or each.cmdline()[:1][0].find(name) >= 0:
            return each
    raise AssertionError(f"{process} has no {name} above it")


def is_started(event: Event) -> bool:
    return isinstance(event, Started)
