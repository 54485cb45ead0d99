"""How a run ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fluxconv.converters.errors import FluxconvError
from fluxconv.recipes.executors.base import Problem
from fluxconv.recipes.graph import Graph
from fluxconv.recipes.kinds.publish import published_in
from fluxconv.recipes.markers import Marker


@dataclass(frozen=True)
class RunResult:
    """How a run ended: the markers of all nodes, in the order of the graph, and those that were
    done in this run. `output` is the folder of the release."""

    output: Path | str
    graph: Graph
    markers: Mapping[str, Marker]
    done_now: tuple[str, ...]

    @property
    def failed(self) -> tuple[Marker, ...]:
        """The nodes that were not done well, and those that wait for a later run."""
        return tuple(m for m in self.markers.values() if m.state in ("failed", "waiting"))

    @property
    def left_out(self) -> tuple[Marker, ...]:
        """The nodes that could not be done because of these."""
        return tuple(m for m in self.markers.values() if m.state == "left out")

    @property
    def pages(self) -> tuple[str, ...]:
        """The pages that show the variants of each checkpoint side by side."""
        compared = (m for id, m in self.markers.items() if self.graph[id].kind == "compare")
        pages = (m.result["page"] for m in compared if m.state == "done" and m.result)
        return tuple(f"{self.output}/{page}" for page in pages)

    @property
    def still_published(self) -> Mapping[str, str]:
        """The variants that this release does not publish (they failed, or it has them no more),
        and where an earlier run has published them: nobody has taken them away there."""
        last = next((m for id, m in self.markers.items() if self.graph[id].kind == "publish"), None)
        if last is None or last.result is None:
            return {}
        if last.state == "done":
            found: Mapping[str, str] = last.result.get("still_published", {})
            return found
        cards = (id for id in self.graph if self.graph[id].kind == "card")
        passed = {self.graph[id].name for id in cards if self.markers[id].state == "done"}
        return {n: url for n, url in published_in(last.result).items() if n not in passed}

    @property
    def error(self) -> FluxconvError | None:
        """That of the first node that was not done well, if there is one."""
        if not self.failed:
            return None
        marker = self.failed[0]
        problem = marker.problem or Problem("CheckFailed", marker.why or "not done")
        return replace(problem, message=f"{marker.id}: {problem.message}").error()

    def require(self) -> None:
        """Raise `error`, if there is one."""
        if (error := self.error) is not None:
            raise error
