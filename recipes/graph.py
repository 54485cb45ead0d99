"""A recipe as a graph: units of work that can be done again without harm, and what each needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fluxconv.converters.errors import BadInput

#: What a node leaves: plain JSON. `digest` stands for all of it in the keys of those that wait for
#: it, or `variants`, by name, for those that are about one variant; `failed`, if it is there, is
#: the sentence why what was looked at is not good enough.
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Resources:
    """What a node takes while it runs: processor cores, GPUs, bytes of memory. One that runs
    `alone` has its machine for itself, as what is timed must."""

    cpus: int = 1
    gpus: int = 0
    memory: int = 0
    alone: bool = False


@dataclass(frozen=True)
class Node:
    """One unit of work.

    `id` is `KIND.NAME`, fit for a file name; `arguments` are plain JSON and hold all of the recipe
    that decides the result (but no place: what is read or written lies where the run says). What it
    `needs` must have been done well; what it `gathers` must only have ended, and it takes the
    results there are. A node `on_driver` runs on the machine that drives the run, with its
    credentials. A `passing` node serves others only: it is done again if one of those will be.
    """

    id: str
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    gathers: tuple[str, ...] = ()
    resources: Resources = Resources()
    on_driver: bool = False
    passing: bool = False

    @property
    def name(self) -> str:
        """The id without the kind."""
        return self.id.partition(".")[2]

    @property
    def before(self) -> tuple[str, ...]:
        """Everything that must have ended before it begins."""
        return (*self.needs, *self.gathers)


class Graph(Mapping[str, Node]):
    """Nodes by id, each after all that it waits for.

    Raises `BadInput` for an id twice, a node that waits for one that is not there, and a cycle.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        given: dict[str, Node] = {}
        for node in nodes:
            if node.id in given:
                raise BadInput(f"{node.id}: two parts of the release have this name")
            given[node.id] = node
        self._nodes = {id: given[id] for id in _ordered(given)}

    def __getitem__(self, id: str) -> Node:
        return self._nodes[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    @cached_property
    def dependants(self) -> Mapping[str, tuple[str, ...]]:
        """For each node those that wait for it."""
        found: dict[str, list[str]] = {id: [] for id in self}
        for node in self.values():
            for id in node.before:
                found[id].append(node.id)
        return {id: tuple(ids) for id, ids in found.items()}


def _ordered(nodes: Mapping[str, Node]) -> list[str]:
    done: dict[str, None] = {}
    open_: set[str] = set()

    def visit(id: str, wanted_by: str) -> None:
        if id in done:
            return
        if id not in nodes:
            raise BadInput(f"{wanted_by}: waits for '{id}', which is not in the release")
        if id in open_:
            raise BadInput(f"{id}: waits for itself, by way of {wanted_by}")
        open_.add(id)
        for other in nodes[id].before:
            visit(other, id)
        done[id] = None

    for id in nodes:
        visit(id, id)
    return list(done)
