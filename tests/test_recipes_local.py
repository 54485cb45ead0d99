"""The executor of one machine: what runs beside what, on which GPU, on how many cores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from releases import TINY_FLUX

from fluxconv.converters.progress import Silent
from fluxconv.converters.threads import cores
from fluxconv.recipes.executors.base import (
    Ended,
    Event,
    Request,
    Started,
    library_versions,
    run_node,
)
from fluxconv.recipes.executors.local import LocalExecutor
from fluxconv.recipes.graph import Node, Resources

FETCH = {
    "id": str(TINY_FLUX),
    "base": None,
    "revision": None,
    "source_id": None,
    "allow_requantize": False,
}


def request(name: str, **resources: Any) -> Request:
    """A node that opens the tiny Flux."""
    node = Node(f"fetch.{name}", "fetch", FETCH, resources=Resources(**resources))
    return Request(node, {}, "/nowhere", library_versions())


def events(executor: LocalExecutor, count: int) -> list[Event]:
    """Beginnings and ends, until so many nodes have ended well."""
    found: list[Event] = []
    while sum(isinstance(event, Ended) for event in found) < count:
        event = executor.next(1)
        if isinstance(event, Ended):
            assert event.outcome.problem is None, event.outcome.problem
        if isinstance(event, Started | Ended):
            found.append(event)
    return found


def alone(found: list[Event], id: str) -> bool:
    """Whether nothing else ran while the node did."""
    order = [event.id for event in found]
    at = order.index(id)
    running = [each for each in order[:at] if order[:at].count(each) == 1]
    return not running and order[at + 1] == id


def test_alone_means_that_nothing_else_runs() -> None:
    with LocalExecutor(processes=3) as executor:
        for name in ("a", "b", "x", "c"):
            executor.submit(request(name, alone=name == "x"))
        assert alone(events(executor, 4), "fetch.x")


def test_what_does_not_fit_into_memory_beside_the_others_waits() -> None:
    with LocalExecutor(processes=3) as executor:
        for name, memory in (("a", 0), ("b", 0), ("x", 1 << 60)):
            executor.submit(request(name, memory=memory))
        # It begins all the same: its own estimate may be wrong, and it says best what is lacking.
        assert alone(events(executor, 3), "fetch.x")


def test_each_gpu_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5")
    with LocalExecutor(device="cuda", processes=9) as executor:
        assert executor.processes == 2
        for name in "abc":
            executor.submit(request(name, gpus=1))
        seen: list[str] = []
        running: set[str] = set()
        while len(seen) < 3 or running:
            event = executor.next(1)
            if isinstance(event, Started):
                text = Path(f"/proc/{event.pid}/environ").read_text()
                (gpu,) = (
                    each.partition("=")[2]
                    for each in text.split("\0")
                    if each.startswith("CUDA_VISIBLE_DEVICES=")
                )
                running.add(event.id)
                seen.append(gpu)
                assert len(running) <= 2
            if isinstance(event, Ended):
                assert event.outcome.problem is None
                running.discard(event.id)
        assert set(seen[:2]) == {"3", "GPU-5"} and seen[2] in seen[:2]


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXCONV_CORES", "2")
    monkeypatch.setattr("fluxconv.converters.threads.os.sched_getaffinity", lambda _: set(range(8)))
    assert cores() == 2
    monkeypatch.delenv("FLUXCONV_CORES")
    assert cores() == 8


def test_node_computes_on_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", str(before))  # put back after the test, as the other one
    monkeypatch.setenv("FLUXCONV_CORES", str(before))
    try:
        outcome = run_node(replace(request("a"), threads=1), Silent())
        assert outcome.problem is None
        assert torch.get_num_threads() == 1 and cores() == 1
    finally:
        torch.set_num_threads(before)
