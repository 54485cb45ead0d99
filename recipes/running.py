"""Running a recipe: checked, then made into a graph, then done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from fluxconv.converters.progress import Progress, Silent
from fluxconv.recipes.building import build
from fluxconv.recipes.checked import Checked
from fluxconv.recipes.checking import check
from fluxconv.recipes.driving import Drive
from fluxconv.recipes.executors import open_executor
from fluxconv.recipes.executors.base import Executor, library_versions
from fluxconv.recipes.graph import Node
from fluxconv.recipes.markers import Marker, Markers
from fluxconv.recipes.moving import known_commits, refuse_moved
from fluxconv.recipes.reading import read_leniently
from fluxconv.recipes.recipe import Recipe
from fluxconv.recipes.recipe_file import RecipeFile, as_file
from fluxconv.recipes.result import RunResult
from fluxconv.recipes.scheduling import Schedule
from fluxconv.recipes.watching import ProgressWatcher, Watcher


def run(
    recipe: Path | str | Recipe | RecipeFile | Checked,
    *,
    executor: Literal["local", "ray"] | Executor | None = None,
    address: str | None = None,
    processes: int | None = None,
    parts: int | None = None,
    output: Path | None = None,
    publish: bool = True,
    strict: bool = False,
    progress: Progress | None = None,
    watcher: Watcher | None = None,
) -> RunResult:
    """Make a release: everything that the recipe asks for and that is not done yet.

    What fails does not stop the rest; what depends on it is left out, and what is published is what
    passed, unless `strict`, or the recipe, wants all or nothing. Killed at any moment, the same
    call goes on. `executor`, `address`, `processes`, `parts` and `output` are those of the recipe
    unless they are given; `publish=False` sends nothing to the Hub. How each node ended is in the
    result, also of those that failed: see `RunResult.require`.

    Raises `BadRecipe` with all that is wrong before any work starts, `SourceChanged` for a revision
    that moved since the release was begun, `OutputExists` while another run works on the same
    output, and `Interrupted` after Ctrl-C, when all work has been stopped in order; a second Ctrl-C
    stops it at once.
    """
    watching = watcher or ProgressWatcher(progress or Silent())
    kind = executor if isinstance(executor, str) else None
    if isinstance(recipe, str | Path):
        recipe = read_leniently(recipe)
    if not isinstance(recipe, Checked):
        file = placed(as_file(recipe), output, kind=kind, parts=parts)
        recipe = check(file, at_once=publish, progress=progress or Silent())
    recipe.require()
    checked = recipe if output is None else replace(recipe, output=output.absolute())
    folder = checked.output
    graph = build(
        checked,
        parts=parts or checked.recipe.executor.parts,
        publish=publish,
        strict=strict,
        commits=known_commits(checked, Markers(folder)),
    )
    wanted = checked.recipe.executor
    with Markers(folder).locked():
        refuse_moved(checked, Markers(folder))
        if executor is None or isinstance(executor, str):
            executor = open_executor(
                executor or wanted.kind,
                device=checked.device,
                processes=processes or wanted.processes,
                address=address or wanted.address,
            )
        with executor:
            return Drive(graph, folder, executor, watching, checked.file.name).go()


def preview(
    checked: Checked, *, parts: int | None = None, publish: bool = True, strict: bool = False
) -> tuple[tuple[Node, Marker | None, bool], ...]:
    """What a run of this recipe would begin with: every node, with its marker if it is done and
    nothing is known for which it would be done again, and whether that is certain. Writes
    nothing."""
    folder = checked.output
    markers = Markers(folder)
    commits = known_commits(checked, markers)
    graph = build(checked, parts=parts, publish=publish, strict=strict, commits=commits)
    schedule = Schedule(graph, markers, folder, library_versions())
    schedule.ready()
    undone = schedule.undone()
    ends = schedule.finish()
    return tuple(
        (node, None, undone.get(node.id, True))
        if node.id in undone or ends[node.id].state not in ("done", "failed")
        else (node, ends[node.id], True)
        for node in graph.values()
    )


def placed(file: RecipeFile, output: Path | None, **executor: object) -> RecipeFile:
    """The recipe with another folder for its variants and other keys of its executor; None leaves
    each as it is."""
    recipe = file.recipe
    if output is not None:
        recipe = recipe.model_copy(update={"output": str(output.absolute())})
    given = {key: value for key, value in executor.items() if value is not None}
    part = recipe.executor.model_copy(update=given)
    return replace(file, recipe=recipe.model_copy(update={"executor": part}))
