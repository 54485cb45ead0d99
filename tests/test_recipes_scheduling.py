"""What is done, what is done again, and what is left out: from graph and markers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fluxconv.converters.errors import BadInput, OutputExists
from fluxconv.recipes.executors.base import Problem
from fluxconv.recipes.graph import Graph, Node
from fluxconv.recipes.markers import Marker, Markers
from fluxconv.recipes.scheduling import Schedule

VERSIONS = {"fluxconv": "1", "torch": "2"}


def graph_of(limit: int = 1) -> Graph:
    """Like a release: one source, one pass, a reference, two variants, a page, a publisher."""
    return Graph(
        [
            Node("publish.release", "publish", gathers=("card.a", "card.b")),
            Node("compare.x", "compare", gathers=("validate.a", "validate.b")),
            *(
                Node(f"validate.{v}", "validate", {"variant": v, "limit": limit}, SOURCES)
                for v in "ab"
            ),
            *(Node(f"card.{v}", "card", {"variant": v}, (f"validate.{v}",)) for v in "ab"),
            Node("quantize.x", "quantize", {"backends": []}, ("fetch.x",)),
            Node("reference.x", "reference", {}, ("fetch.x",), passing=True),
            Node("fetch.x", "fetch", {"id": "x"}, passing=True),
        ]
    )


SOURCES = ("quantize.x", "reference.x")


class World:
    """A folder with markers, and the files that results name."""

    def __init__(self, folder: Path) -> None:
        self.output = folder
        self.markers = Markers(folder)
        self._lock = self.markers.locked()
        self._lock.__enter__()

    def schedule(self, graph: Graph) -> Schedule:
        return Schedule(graph, self.markers, self.output, VERSIONS)

    def run(
        self, graph: Graph, fail: tuple[str, ...] = (), full: tuple[str, ...] = ()
    ) -> list[str]:
        """Do what a run would do, each node by its result alone; returns which nodes were done."""
        schedule, done = self.schedule(graph), []
        while ready := schedule.ready():
            for node in ready:
                done.append(node.id)
                if node.id in fail:
                    problem = Problem("CheckFailed", "it is bad")
                    marker = Marker(node.id, "failed", problem=problem, why="it is bad")
                elif node.id in full:
                    marker = Marker(node.id, "waiting", why="no room")
                else:
                    marker = Marker(
                        node.id, "done", schedule.key(node), self.result(node, schedule)
                    )
                self.markers.write(marker)
                schedule.update(marker)
        self.ends = {id: marker.state for id, marker in schedule.finish().items()}
        self.whys = {id: marker.why for id, marker in schedule.finish().items()}
        return done

    def result(self, node: Node, schedule: Schedule) -> dict[str, object]:
        """What the kinds' own `stands` look for, with real files."""
        here = self.output
        digest = schedule.key(node)
        (here / node.id).write_text(digest)
        match node.kind:
            case "fetch":
                size = (here / node.id).stat().st_size
                return {"digest": "source", "files": {str(here / node.id): size}}
            case "quantize":
                return {"digest": digest, "variants": {}}
            case "reference":
                return {"digest": digest, "folder": str(here), "files": [node.id]}
            case "validate":
                (here / node.name).mkdir(exist_ok=True)
                for name in ("report.json", "fluxconv.json"):
                    (here / node.name / name).write_text(name)
                from fluxconv.converters.variant import hash_file

                manifest = hash_file(here / node.name / "fluxconv.json").sha256
                return {"digest": digest, "variant": node.name, "manifest": manifest}
            case "compare":
                return {"digest": digest, "page": node.id}
            case "card":
                return {"digest": digest, "variant": node.name, "files": {}}
        return {"digest": digest}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "out")


def test_everything_is_done_once_and_in_order(world: World) -> None:
    graph = graph_of()
    done = world.run(graph)
    assert sorted(done) == sorted(graph)
    for id in graph:
        assert all(done.index(other) < done.index(id) for other in graph[id].before)
    assert world.run(graph) == []
    assert set(world.ends.values()) == {"done"}


def test_changed_argument_redoes_what_depends_on_it(world: World) -> None:
    world.run(graph_of(limit=1))
    done = world.run(graph_of(limit=2))
    assert set(done) == {
        *("validate.a", "validate.b", "compare.x", "card.a", "card.b", "publish.release")
    }


def test_where_a_file_lies_does_not_matter_but_what_it_holds_does(world: World) -> None:
    def graph(path: str, sha256: str) -> Graph:
        return Graph([Node("compare.x", "compare", {"file": {"path": path, "sha256": sha256}})])

    assert world.run(graph("/a", "1")) == ["compare.x"]
    assert world.run(graph("/b", "1")) == []
    assert world.run(graph("/b", "2")) == ["compare.x"]


def test_other_libraries_redo_what_they_decide(world: World) -> None:
    graph = graph_of()
    world.run(graph)
    newer = Schedule(graph, world.markers, world.output, {**VERSIONS, "torch": "3"})
    assert [node.id for node in newer.ready()] == ["quantize.x", "reference.x"]


def test_lost_report_is_made_again_and_what_only_serves_is_not(world: World) -> None:
    graph = graph_of()
    world.run(graph)
    (world.output / "fetch.x").unlink()
    (world.output / "reference.x").unlink()
    assert world.run(graph) == []
    (world.output / "a" / "report.json").unlink()
    # The report needs the source's pictures, and these need the source.
    assert world.run(graph) == ["fetch.x", "reference.x", "validate.a"]


def test_failure_leaves_out_what_needs_it_and_nothing_else(world: World) -> None:
    graph = graph_of()
    world.run(graph, fail=("validate.a",))
    assert world.ends == dict.fromkeys(graph, "done") | {
        "validate.a": "failed",
        "card.a": "left out",
    }
    assert world.whys["card.a"] == "validate.a failed"
    # The next run tries it again, and then all that it held up.
    assert world.run(graph) == ["validate.a", "card.a", "compare.x", "publish.release"]


def test_all_or_nothing_publishes_nothing_after_a_failure(world: World) -> None:
    graph = graph_of()
    strict = Graph(
        replace(node, needs=node.gathers, gathers=()) if node.kind == "publish" else node
        for node in graph.values()
    )
    world.run(strict, fail=("validate.a",))
    assert world.ends["publish.release"] == "left out"
    assert world.ends["card.b"] == "done"


def test_verdict_is_not_asked_for_twice_and_holds(world: World) -> None:
    graph = graph_of()
    world.run(graph)
    before = world.markers.read("validate.a")
    assert before is not None and before.result is not None
    judged = replace(before, state="failed", result={**before.result, "failed": "too far off"})
    world.markers.write(judged)
    assert "validate.a" not in world.run(graph)
    assert (world.ends["validate.a"], world.whys["validate.a"]) == ("failed", "too far off")
    assert world.ends["card.a"] == "left out" and world.ends["card.b"] == "done"


def test_full_disk_holds_up_what_needs_it_and_the_rest_is_done(world: World) -> None:
    graph = graph_of()
    world.run(graph, full=("validate.a",))
    waiting = {id for id, state in world.ends.items() if state == "waiting"}
    assert waiting == {"validate.a", "card.a", "compare.x", "publish.release"}
    assert world.run(graph) == ["validate.a", "card.a", "compare.x", "publish.release"]


def test_half_written_marker_counts_as_none(world: World) -> None:
    graph = graph_of()
    world.run(graph)
    file = world.markers.folder / "nodes" / "compare.x.json"
    for text in ("", "{", "[]", '{"id": "compare.x"}', '{"unknown": 1}'):
        file.write_text(text)
        assert world.run(graph) == ["compare.x"]


def test_two_runs_at_once_are_refused(world: World) -> None:
    with pytest.raises(OutputExists, match="another run is at work there"), world.markers.locked():
        pass


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([Node("a.x", "a"), Node("a.x", "a")], "two parts of the release have this name"),
        ([Node("a.x", "a", needs=("b.x",))], "waits for 'b.x', which is not in the release"),
        ([Node("a.x", "a", needs=("b.x",)), Node("b.x", "b", gathers=("a.x",))], "by way of"),
    ],
)
def test_impossible_graphs_are_refused(nodes: list[Node], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        Graph(nodes)
