"""What cannot be meant in a recipe, though each of its parts alone could: known without looking at
anything outside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from fluxconv.converters.errors import nearest
from fluxconv.converters.visible import visible
from fluxconv.recipes.problems import Place

if TYPE_CHECKING:
    from fluxconv.recipes.recipe import BackendRow, CheckpointRow, Recipe

#: The type of the pydantic error that carries contradictions; its context has them all.
CONTRADICTIONS = "contradictions"
#: Settings of a backend with keys of their own in its row.
ROW_SETTINGS = ("skip", "tensor_types", "effort", "importance")
#: What may be a repository, a file in one, or a repository at a revision.
MAY_BE_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/.+|@.+)?")
_WEIGHTS = (".safetensors", ".gguf")


def refuse(found: Iterator[tuple[Place, str]]) -> None:
    """Raise one error with all that was found, if anything was."""
    problems = list(found)
    if problems:
        text = "; ".join(sentence for _, sentence in problems)
        context = {"text": text.replace("{", "(").replace("}", ")"), "problems": problems}
        raise PydanticCustomError(CONTRADICTIONS, "{text}", context)


def contradictions(recipe: Recipe) -> Iterator[tuple[Place, str]]:
    """Each with its place in the recipe."""
    yield from _checkpoints(recipe.checkpoints)
    yield from _backends(recipe)
    yield from _twice(recipe.components, ("components",))
    yield from _twice(recipe.validation.seeds or (), ("validation", "seeds"))
    yield from _twice(recipe.card.blind_tests, ("card", "blind_tests"))
    if recipe.performance:
        yield from _twice(recipe.performance.modes, ("performance", "modes"))
    executor = recipe.executor
    if executor.address is not None and executor.kind != "ray":
        yield ("executor", "address"), "only `kind: ray` has an address; remove one of the two"


def checkpoint_name(id_: str) -> str | None:
    """What variants of a checkpoint are called after, as far as its `id` tells."""
    last = PurePosixPath(id_.replace("\\", "/")).name
    if last in ("", ".", ".."):
        return None
    return last.rpartition(".")[0] if last.endswith(_WEIGHTS) else last


def settings_of(row: BackendRow) -> dict[str, Any]:
    """All settings that a row gives its backend."""
    given = {key: value for key in ROW_SETTINGS if (value := getattr(row, key))}
    return {**row.options, **given}


def _checkpoints(rows: Sequence[CheckpointRow]) -> Iterator[tuple[Place, str]]:
    for number, row in enumerate(rows):
        if row.base is not None and row.base == row.id:
            yield ("checkpoints", number, "base"), "is the checkpoint itself; remove it"
        for before in rows[:number]:
            if (before.id, before.revision) == (row.id, row.revision):
                yield ("checkpoints", number), f"{visible(row.id)} is named twice"
                break
            name = checkpoint_name(row.id)
            if name is not None and name == checkpoint_name(before.id):
                yield ("checkpoints", number), same_name(row.id, before.id, name)
                break


def same_name(id_: str, before: str, name: str) -> str:
    """What is said of a checkpoint whose variants would be called as those of another one."""
    return (
        f"the variants of {visible(id_)} would have the names of those of {visible(before)} "
        f"('{visible(name)}-…'); give each a recipe and an output of its own"
    )


def _backends(recipe: Recipe) -> Iterator[tuple[Place, str]]:
    ids = [row.id for row in recipe.checkpoints]
    for number, row in enumerate(recipe.backends):
        place = ("backends", number)
        for key in ROW_SETTINGS:
            if key in row.options:
                yield (
                    (*place, "options", key),
                    f"give `{key}:` in the row itself, beside `backend:`, not under `options:`",
                )
        for index, wanted in enumerate(row.checkpoints or ()):
            if wanted not in ids:
                yield (
                    (*place, "checkpoints", index),
                    f"the recipe has no checkpoint '{visible(wanted)}'{nearest(wanted, ids)}",
                )
        yield from _twice(row.checkpoints or (), (*place, "checkpoints"))
        yield from _again(recipe, number)
    for number, checkpoint in enumerate(recipe.checkpoints):
        if not any(meant_for(row, checkpoint) for row in recipe.backends):
            yield ("checkpoints", number), f"{visible(checkpoint.id)}: no backend is for it"


def meant_for(row: BackendRow, checkpoint: CheckpointRow) -> bool:
    """Whether the backend of a row is for the checkpoint."""
    return row.checkpoints is None or checkpoint.id in row.checkpoints


def _again(recipe: Recipe, number: int) -> Iterator[tuple[Place, str]]:
    """What an earlier row makes already."""
    row = recipe.backends[number]
    for before in recipe.backends[:number]:
        same = before.backend == row.backend and settings_of(before) == settings_of(row)
        both = (meant_for(row, c) and meant_for(before, c) for c in recipe.checkpoints)
        if same and any(both):
            yield ("backends", number), f"{visible(row.backend)} is named twice, set alike"
            return


def _twice(values: Sequence[Any], place: Place) -> Iterator[tuple[Place, str]]:
    for number, value in enumerate(values):
        if value in values[:number]:
            yield (*place, number), f"'{visible(value)}' is given twice"
