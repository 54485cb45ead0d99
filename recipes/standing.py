"""How a run stands, from what it left on the disk alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fluxconv.converters.errors import BadInput
from fluxconv.recipes.markers import FOLDER, Marker, Markers, RunRecord

RunState = Literal["running", "finished", "failed", "stopped", "died"]


@dataclass(frozen=True)
class RunStatus:
    """A run and its nodes, in the order of the graph.

    `state` is `running`, `finished` if every node is done, `failed` if the run came to its end and
    something was not good enough, `stopped` if something only waits to be done, `died` if its
    driver is gone without having said so. Of a driver on another machine nobody can tell, so it
    counts as running.
    """

    output: Path
    recipe: str
    executor: str
    state: RunState
    started: float
    ended: float | None
    host: str
    pid: int
    nodes: tuple[Marker, ...]

    @property
    def seconds(self) -> float | None:
        """How long it took, or has taken by now; None if it died."""
        if self.state == "died":
            return None
        return (time.time() if self.ended is None else self.ended) - self.started

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the nodes' own results."""
        return {
            "output": str(self.output),
            "recipe": self.recipe,
            "executor": self.executor,
            "state": self.state,
            "started": self.started,
            "ended": self.ended,
            "seconds": self.seconds,
            "driver": {"host": self.host, "pid": self.pid},
            "nodes": [node_json(marker) for marker in self.nodes],
        }


def node_json(marker: Marker) -> dict[str, Any]:
    """A node as plain data, for programs."""
    return {
        "id": marker.id,
        "kind": marker.id.partition(".")[0],
        "state": marker.state,
        "started": marker.started,
        "ended": marker.ended,
        "seconds": marker.seconds,
        "peak_memory": marker.peak_memory,
        "host": marker.host,
        "pid": marker.pid,
        "attempts": marker.attempts,
        "why": marker.why,
        "error": marker.problem.type if marker.problem else None,
    }


def status(folder: Path | str) -> RunStatus:
    """The last run of the release in `folder`; raises `BadInput` if there was none."""
    output = Path(folder)
    markers = Markers(output)
    record = markers.read_run()
    if record is None:
        raise BadInput(f"{output}: holds no run: {FOLDER}/run.json is missing or is none")
    nodes = [markers.read(id) or Marker(id, "waiting") for id in record.nodes]
    state = _state(record, nodes)
    if state != "running":
        # Whoever was at work when the driver died has died with it.
        end = "died" if state == "died" else "ended"
        nodes = [
            replace(node, state="waiting", why=f"was at work when the run {end}")
            if node.state == "running"
            else node
            for node in nodes
        ]
    return RunStatus(
        output,
        record.recipe,
        record.executor,
        state,
        record.started,
        record.ended,
        record.driver.host,
        record.driver.pid,
        tuple(nodes),
    )


def _state(record: RunRecord, nodes: list[Marker]) -> RunState:
    if record.ended is None:
        return "died" if record.driver.is_gone else "running"
    states = {node.state for node in nodes}
    if states <= {"done"}:
        return "finished"
    return "failed" if "failed" in states else "stopped"
