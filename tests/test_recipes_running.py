"""Releases of the tiny Flux, made by real processes: what is done once, again, and not at all."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_client import USER
from huggingface_hub import HfApi
from releases import BACKEND, VARIANT, write_recipe

from fluxconv.converters import open_variant
from fluxconv.converters.errors import (
    BadInput,
    CheckFailed,
    DiskFull,
    HubRefused,
    OutputExists,
    SourceChanged,
    UnknownBackend,
)
from fluxconv.converters.progress import Silent
from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.recipes import RunResult, check, read_recipe, run, status
from fluxconv.recipes.executors.base import Problem, Request, library_versions, run_node
from fluxconv.recipes.graph import Node
from fluxconv.recipes.markers import Markers
from fluxconv.recipes.moving import refuse_moved
from fluxconv.validators.thresholds import DEFAULT

OTHER = "tiny-flux-bnb-nf4"
BACKENDS = [BACKEND, "bnb-nf4"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """The folder of a release of two variants that was made, and how."""
    folder = tmp_path_factory.mktemp("made")
    recipe = write_recipe(folder, backends=BACKENDS)
    return folder, run(recipe)


@pytest.fixture
def made(first: tuple[Path, RunResult], tmp_path: Path) -> Path:
    """A copy of it, with its recipe."""
    return Path(shutil.copytree(first[0], tmp_path / "release"))


def again(folder: Path, **parts: Any) -> RunResult:
    return run(write_recipe(folder, **{"backends": BACKENDS, **parts}))


def test_a_release_is_made(first: tuple[Path, RunResult]) -> None:
    folder, done = first
    done.require()
    assert {marker.state for marker in done.markers.values()} == {"done"}
    assert sorted(done.done_now) == sorted(done.graph)
    out = folder / "out"
    for name in (VARIANT, OTHER):
        assert (out / name / "README.md").is_file()
        assert json.loads((out / name / "report.json").read_text())["verdict"]["passed"]
    assert (out / "comparison-tiny-flux" / "report.html").is_file()
    found = status(out)
    assert found.state == "finished" and [n.id for n in found.nodes] == list(done.graph)
    for node in found.nodes:
        assert node.seconds is not None and node.seconds > 0
        # Python with torch, and less than this machine has.
        assert node.peak_memory is not None and 5e7 < node.peak_memory < 2e10


def test_second_run_does_nothing_wherever_the_folder_is(made: Path) -> None:
    done = again(made)
    assert done.done_now == ()
    assert {marker.state for marker in done.markers.values()} == {"done"}


def test_pass_in_parts_makes_the_same_bytes(first: tuple[Path, RunResult], tmp_path: Path) -> None:
    done = run(write_recipe(tmp_path, backends=BACKENDS), parts=2, processes=2)
    done.require()
    kinds = [node.kind for node in done.graph.values()]
    assert kinds.count("part") == 2 and "quantize" not in kinds
    for name in (VARIANT, OTHER):
        one, other = (each / "out" / name / "fluxconv.json" for each in (first[0], tmp_path))
        assert one.read_bytes() == other.read_bytes()
        open_variant(other.parent).check_hashes(Silent())
    assert run(write_recipe(tmp_path, backends=BACKENDS), parts=2).done_now == ()


def test_other_limits_judge_again_and_nothing_is_drawn(made: Path) -> None:
    limits = yaml.safe_load(DEFAULT.read_text())
    (made / "limits.yaml").write_text(yaml.safe_dump(limits))
    pictures = [made / "references", made / "out" / VARIANT / ".validation"]
    before = {p: p.stat().st_mtime_ns for each in pictures for p in each.rglob("*.*")}
    assert len(before) > 5
    done = again(made, validation={"thresholds": "limits.yaml"})
    done.require()
    assert set(done.done_now) == {
        *(f"{kind}.{name}" for kind in ("validate", "card") for name in (VARIANT, OTHER)),
        "compare.tiny-flux",
    }
    measured = [p for p in before if p.name != "drawn-with.json"]
    assert {p: p.stat().st_mtime_ns for p in measured} == {p: before[p] for p in measured}
    report = json.loads((made / "out" / VARIANT / "report.json").read_text())
    assert report["thresholds"] == "limits.yaml"


def test_one_more_backend_leaves_the_others_as_they_are(made: Path) -> None:
    done = again(made, backends=[*BACKENDS, "gguf-q8_0"])
    new = "tiny-flux-gguf-q8_0"
    assert {f"validate.{new}", f"card.{new}", "quantize.tiny-flux"} <= set(done.done_now)
    assert f"validate.{VARIANT}" not in done.done_now


def test_lost_variant_is_made_again_alone(made: Path) -> None:
    shutil.rmtree(made / "out" / OTHER)
    done = again(made)
    assert {"quantize.tiny-flux", f"validate.{OTHER}", f"card.{OTHER}"} <= set(done.done_now)
    assert f"validate.{VARIANT}" not in done.done_now


@pytest.fixture
def unfair(made: Path) -> Path:
    """The same with limits that no variant of four bits can keep."""
    limits = yaml.safe_load(DEFAULT.read_text())
    for row in limits["classes"]:
        if row["bits"] < 7:
            row["limits"]["weights_rms"]["limit"] = 1e-9
    (made / "limits.yaml").write_text(yaml.safe_dump(limits))
    return made


UNFAIR = {"thresholds": "limits.yaml"}


def test_variant_that_fails_stops_no_other(unfair: Path) -> None:
    done = again(unfair, validation=UNFAIR)
    ends = {id: marker.state for id, marker in done.markers.items()}
    assert ends[f"validate.{OTHER}"] == "failed" and ends[f"card.{OTHER}"] == "left out"
    assert {state for id, state in ends.items() if OTHER not in id} == {"done"}
    with pytest.raises(CheckFailed, match=rf"validate\.{OTHER}: .* RMS error"):
        done.require()
    found = status(unfair / "out")
    assert found.state == "failed"
    # A verdict holds until something else is asked for.
    assert again(unfair, validation=UNFAIR).done_now == ()
    assert again(unfair).markers[f"validate.{OTHER}"].state == "done"


@pytest.fixture
def online(hub: RehearsalHub, online_client: None, monkeypatch: pytest.MonkeyPatch) -> RehearsalHub:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub


def test_what_passed_is_published_and_published_once(
    unfair: Path, online: RehearsalHub, api: HfApi
) -> None:
    parts = {"publication": {"namespace": USER, "collection": "A release"}}
    done = again(unfair, validation=UNFAIR, **parts)
    assert done.markers["publish.release"].state == "done"
    names = {model.id for model in api.list_models(author=USER)}
    assert f"{USER}/{VARIANT}" in names and f"{USER}/{OTHER}" not in names
    commits = api.list_repo_commits(f"{USER}/{VARIANT}")
    assert again(unfair, validation=UNFAIR, **parts).done_now == ()
    # With fair limits the rest follows, and what is there stays as it is.
    done = again(unfair, **parts)
    done.require()
    assert f"{USER}/{OTHER}" in {model.id for model in api.list_models(author=USER)}
    assert len(api.list_repo_commits(f"{USER}/{VARIANT}")) <= len(commits) + 1


def test_strict_publishes_all_or_nothing(unfair: Path, online: RehearsalHub, api: HfApi) -> None:
    before = {model.id for model in api.list_models()}
    recipe = write_recipe(
        unfair,
        backends=BACKENDS,
        validation=UNFAIR,
        publication={"namespace": USER, "visibility": "private"},
    )
    done = run(recipe, strict=True)
    publisher = done.markers["publish.release"]
    assert publisher.state == "left out" and OTHER in str(publisher.why)
    assert {model.id for model in api.list_models()} == before


def test_two_runs_of_one_output_are_refused(made: Path) -> None:
    with Markers(made / "out").locked(), pytest.raises(OutputExists, match="another run"):
        again(made)


def test_moved_revision_is_refused_before_anything_is_done(made: Path) -> None:
    recipe = read_recipe(write_recipe(made, backends=BACKENDS))
    checked = check(recipe)
    (source,) = checked.checkpoints
    moved = replace(source, revision="b" * 40)
    fetched = Markers(made / "out").read("fetch.tiny-flux")
    assert fetched is not None and fetched.result is not None
    begun = replace(fetched, result={**fetched.result, "revision": "a" * 40})
    Markers(made / "out").write(begun)
    with pytest.raises(SourceChanged, match=f"has moved from {'a' * 40} to {'b' * 40}"):
        run(replace(checked, checkpoints=(moved,)))
    pinned = replace(moved, row=source.row.model_copy(update={"revision": "b" * 40}))
    refuse_moved(replace(checked, checkpoints=(pinned,)), Markers(made / "out"))


def test_worker_with_other_libraries_refuses() -> None:
    versions = {**library_versions(), "torch": "1.0", "gguf": ""}
    node = Node("fetch.x", "fetch", {})
    outcome = run_node(Request(node, {}, "/nowhere", versions), Silent())
    assert outcome.problem is not None and outcome.problem.type == "MissingRequirement"
    for word in ("torch", "the driver has 1.0", "gguf", "the driver has none"):
        assert word in outcome.problem.message


def test_errors_keep_their_class_and_exit_code_on_the_way() -> None:
    for error in (UnknownBackend("bnb-nf5", ["bnb-nf4"]), DiskFull("no room"), HubRefused("no")):
        again = Problem(**json.loads(json.dumps(asdict(Problem.of(error))))).error()
        assert type(again) is type(error)
        assert (str(again), again.exit_code) == (str(error), error.exit_code)
    full = BadInput("cannot be written")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert Problem.of(full).type == "DiskFull"
