"""What cannot be meant in a recipe, though each of its parts alone could: known without looking at
anything outside it."""

from __future__ import annotations

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
            if before.id == row.id and before.revision == row.revision:
                yield ("checkpoints", number), f"{visible(row.id)}: the checkpoint is named twice"
                break


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
    """What an earlier row makes already, or makes under the same name of another checkpoint."""
    row = recipe.backends[number]
    for before in recipe.backends[: number + 1]:
        if before.backend != row.backend or settings_of(before) != settings_of(row):
            continue
        mine = [each for each in recipe.checkpoints if meant_for(row, each)]
        theirs = [each for each in recipe.checkpoints if meant_for(before, each)]
        if before is not row:
            shared = [each for each in mine if each in theirs]
            if shared:
                yield (
                    ("backends", number),
                    f"the backend {visible(row.backend)} is named twice with the same settings",
                )
                return
        yield from _same_names(recipe, number, mine, theirs)


def _same_names(
    recipe: Recipe, number: int, mine: list[CheckpointRow], theirs: list[CheckpointRow]
) -> Iterator[tuple[Place, str]]:
    for one in theirs:
        for other in mine:
            name = checkpoint_name(other.id)
            is_later = recipe.checkpoints.index(one) < recipe.checkpoints.index(other)
            same = name is not None and name == checkpoint_name(one.id)
            if same and is_later and one != other:
                yield (
                    ("checkpoints", recipe.checkpoints.index(other)),
                    f"{visible(other.id)}: its {visible(recipe.backends[number].backend)} variant "
                    f"would have the name of that of {visible(one.id)}; give one of them a recipe "
                    "with another output",
                )


def _twice(values: Sequence[Any], place: Place) -> Iterator[tuple[Place, str]]:
    for number, value in enumerate(values):
        if value in values[:number]:
            yield (*place, number), f"'{visible(value)}' is given twice"
