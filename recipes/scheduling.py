"""Which nodes still have to be done, and which can begin now: from the graph and the markers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fluxconv.recipes.executors.scratch import stands_there
from fluxconv.recipes.graph import Graph, Node, Result
from fluxconv.recipes.kinds import get_kind
from fluxconv.recipes.markers import Marker, Markers, State, key_of

#: States after which nothing more comes in this run.
_OVER = ("done", "failed", "left out", "waiting")


class Schedule:
    """The state of every node of a run.

    A node whose marker has its key, and whose result still stands, is not done again. The key is
    known once everything is over that the node waits for, or has a marker that tells.
    """

    def __init__(
        self, graph: Graph, markers: Markers, output: Path | str, versions: Mapping[str, str]
    ) -> None:
        self._graph, self._output, self._versions = graph, output, versions
        #: What earlier runs left.
        self.earlier = {id: found for id in graph if (found := markers.read(id)) is not None}
        #: What is over in this run, and what runs.
        self.now: dict[str, Marker] = {}
        self._stood: dict[tuple[str, str], bool] = {}

    def update(self, marker: Marker) -> None:
        """A node began, or is over."""
        self.now[marker.id] = marker

    def key(self, node: Node) -> str:
        """The key of a node that can begin."""
        return key_of(node, self.inputs(node), self._versions)

    def inputs(self, node: Node) -> dict[str, Result]:
        """The results that a node is done with."""
        found = {id: self._result(id) for id in node.before}
        return {id: result for id, result in found.items() if result is not None}

    def ready(self) -> list[Node]:
        """The nodes that can begin now. Those that need not begin are over from here on: done in an
        earlier run, or left out."""
        told, settled = self._settle()
        wanted = self._wanted(told, settled)
        return [
            node
            for node in self._graph.values()
            if node.id in wanted and all(self._is_over(id) for id in node.before)
        ]

    def undone(self) -> dict[str, bool]:
        """The nodes that are not over, as far as anybody can tell now; True for those that are done
        anew for certain, False where that depends on what comes out of others."""
        told, settled = self._settle()
        wanted = self._wanted(told, settled)
        return {id: id in told for id in self._graph if id in wanted}

    def finish(self) -> Mapping[str, Marker]:
        """The ends of all nodes, when nothing runs and nothing can begin."""
        _, settled = self._settle()
        for id in self._graph:
            if id not in self.now:
                known = id in settled  # it serves others, and none of them had to be done
                self.now[id] = self._as_it_was(id) if known else Marker(id, "waiting")
        return self.now

    def _settle(self) -> tuple[set[str], set[str]]:
        """Of the nodes that are not over, those whose keys can be told, and of these the ones that
        a marker of that key vouches for; on the way, what need not begin comes to its end."""
        told: set[str] = set()
        settled: set[str] = set()
        for node in self._graph.values():
            if node.id in self.now:
                continue
            if (reason := self._left_out(node)) is not None:
                self.now[node.id] = reason
                continue
            before = node.before
            if not all(self._is_over(id) or id in settled for id in before):
                continue
            told.add(node.id)
            if not self._has_marker(node, settled):
                continue
            passed = (self._is_over(id) or self._graph[id].passing for id in before)
            if all(passed) and self._stands(node.id):
                self.now[node.id] = self._as_it_was(node.id)
            else:
                settled.add(node.id)
        return told, settled

    def _has_marker(self, node: Node, settled: set[str]) -> bool:
        marker = self.earlier.get(node.id)
        if marker is None or marker.result is None or marker.key is None:
            return False
        inputs = {}
        for id in node.before:
            result = self.earlier[id].result if id in settled else self._result(id)
            if result is not None:
                inputs[id] = result
        return marker.key == key_of(node, inputs, self._versions)

    def _wanted(self, told: set[str], settled: set[str]) -> set[str]:
        """The nodes to do: those not settled, those whose results are gone, and of what only serves
        others that which one of these needs for certain."""
        wanted: set[str] = set()
        for id in reversed(list(self._graph)):
            if id in self.now:
                continue
            certain = wanted & told
            serves = any(other in certain for other in self._graph.dependants[id])
            needed = serves or not self._graph[id].passing
            if id not in settled or (needed and not self._stands(id)):
                wanted.add(id)
        return wanted

    def _left_out(self, node: Node) -> Marker | None:
        """The end of a node that cannot begin any more; None if it can."""
        for id in node.needs:
            if id in self.now and self.now[id].state in ("failed", "left out", "waiting"):
                state: State = "waiting" if self.now[id].state == "waiting" else "left out"
                return self._ended(node, state, f"{id} {_WORDS[self.now[id].state]}")
        over = all(id in self.now and self.now[id].state in _OVER for id in node.gathers)
        if node.gathers and not node.needs and over:
            held = [id for id in node.gathers if self.now[id].state == "waiting"]
            if held:
                return self._ended(node, "waiting", f"{held[0]} {_WORDS['waiting']}")
            if not any(self._result(id) for id in node.gathers):
                return self._ended(node, "left out", "nothing it gathers was done")
        return None

    def _ended(self, node: Node, state: State, why: str) -> Marker:
        # What an earlier run left is kept: it may stand again. Its times are those of that run.
        earlier = self.earlier.get(node.id) or Marker(node.id, "waiting")
        return replace(earlier, state=state, why=why, problem=None, seconds=None, peak_memory=None)

    def _as_it_was(self, id: str) -> Marker:
        """The end that an earlier run brought, whatever happened to others since."""
        earlier = self.earlier[id]
        assert earlier.result is not None
        failed = earlier.result.get("failed")
        return replace(earlier, state="failed" if failed else "done", why=failed, problem=None)

    def _is_over(self, id: str) -> bool:
        return id in self.now and self.now[id].state in _OVER

    def _result(self, id: str) -> Result | None:
        """What a node left that is over, if it was done; also one that is not good enough."""
        marker = self.now.get(id)
        if marker is None or marker.state not in ("done", "failed") or marker.problem is not None:
            return None  # where there is a problem, the result is that of an earlier run
        return marker.result

    def _stands(self, id: str) -> bool:
        marker = self.earlier[id]
        assert marker.result is not None and marker.key is not None
        known = (id, marker.key)
        if known not in self._stood:
            if isinstance(self._output, Path):
                kind = get_kind(self._graph[id].kind)
                self._stood[known] = kind.stands(marker.result, self._output)
            else:
                self._stood[known] = stands_there(self._output, marker.result)
        return self._stood[known]


_WORDS = {
    "failed": "failed",
    "left out": "was left out",
    "waiting": "waits",
}
