"""Reading a recipe: every problem of the file at once, each with its line."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fluxconv.recipes.contradictions import CONTRADICTIONS
from fluxconv.recipes.problems import BadRecipe, Place, Problem
from fluxconv.recipes.recipe import Recipe
from fluxconv.recipes.recipe_file import RecipeFile
from fluxconv.recipes.secrets import secrets_in
from fluxconv.recipes.wording import worded
from fluxconv.recipes.yaml_tree import Branch, Unreadable, read_tree

#: Bytes of a recipe; one of a hundred checkpoints with ten backends each has a tenth.
_LARGEST = 256 << 10


def read_recipe(path: Path | str) -> RecipeFile:
    """The recipe in a YAML file; raises `BadRecipe` with everything that is wrong with it."""
    found = read_leniently(path)
    if found.problems:
        raise BadRecipe(found.name, found.problems)
    return found


def read_leniently(path: Path | str) -> RecipeFile:
    """The same, but wrong parts are left out, as long as a recipe remains, and told in `problems`.

    So what the remaining parts say can be checked against the world, and everything that is wrong
    is told at once. Raises `BadRecipe` if nothing remains.
    """
    name = str(path)
    try:
        text = _text(Path(path))
        # What holds a secret is not looked at further, so no message can repeat it.
        secrets = list(secrets_in(text))
        if secrets:
            raise BadRecipe(name, secrets)
        tree, problems = read_tree(text)
        if not isinstance(tree.value, dict):
            raise Unreadable("must hold keys and values, such as `checkpoints:`", tree.line)
    except Unreadable as error:
        raise BadRecipe(name, [error.problem]) from None
    recipe, more = _salvaged(tree)
    problems = sorted([*problems, *more], key=lambda problem: problem.line or 0)
    if recipe is None:
        raise BadRecipe(name, problems)
    folder = Path(path).absolute().parent
    return RecipeFile(recipe, name, folder, dict(tree.lines()), tuple(problems))


def _text(path: Path) -> str:
    try:
        # Opening a pipe would wait for somebody to write into it.
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise Unreadable("is a folder; give the recipe's file")
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("is not a regular file")
        if found.st_size > _LARGEST:
            raise Unreadable(f"has {found.st_size:,} bytes, and a recipe at most {_LARGEST:,}")
        # utf-8-sig: editors on Windows put a mark at the start.
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise Unreadable("no such file; `fluxconv recipe init` writes one") from None
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        why = error.strerror if isinstance(error, OSError) else error
        raise Unreadable(f"cannot be read: {why}") from None


def _salvaged(tree: Branch) -> tuple[Recipe | None, list[Problem]]:
    """The recipe in `tree`, from which wrong parts are cut, and what was wrong with them."""
    problems: list[Problem] = []
    first = True
    without_rows = False
    while True:
        try:
            return Recipe.model_validate(tree.plain()), problems
        except ValidationError as error:
            found = list(_found(error))
        lines = dict(tree.lines())
        for problem, is_contradiction in found:
            # After a cut, what is missing is what was cut; and so may be what a name refers to.
            refers = without_rows and problem.place[-2:-1] == ("checkpoints",)
            if first or (is_contradiction and not refers):
                problems.append(_placed(problem, lines))
        first = False
        # From the end, so that the numbers of rows before it stay.
        cuts = [_cut(tree, place) for place in sorted(_places(found), key=_order, reverse=True)]
        if not any(cuts):
            return None, problems
        without_rows = without_rows or any(cut == "row" for cut in cuts)


def _found(error: ValidationError) -> Iterator[tuple[Problem, bool]]:
    """Each thing that is wrong, and whether it is a contradiction."""
    errors = error.errors()
    for each in errors:
        if each["type"] == "too_short" and any(
            len(other["loc"]) > len(each["loc"]) and other["loc"][: len(each["loc"])] == each["loc"]
            for other in errors
        ):
            continue  # pydantic counts only those that are right
        if each["type"] == CONTRADICTIONS:
            for place, sentence in each["ctx"]["problems"]:
                problem = Problem(sentence, place)
                key = problem.key
                yield replace(problem, sentence=f"{key}: {sentence}"), True
        else:
            yield worded(each), False


def _places(found: list[tuple[Problem, bool]]) -> set[Place]:
    return {problem.place for problem, _ in found}


def _order(place: Place) -> list[tuple[int, str]]:
    return [(step, "") if isinstance(step, int) else (-1, step) for step in place]


def _placed(problem: Problem, lines: dict[Place, int]) -> Problem:
    place = problem.place
    while place not in lines:
        place = place[:-1]
    return replace(problem, line=lines[place])


def _cut(tree: Branch, place: Place) -> str | None:
    """Take the part at `place` out of the tree; returns what it was, None if there is none."""
    if not place:
        return None
    *around, last = place
    inner: Any = tree.value
    try:
        for step in around:
            inner = inner[step].value
        del inner[last]
    except (LookupError, TypeError):
        return None  # a part around it was cut already
    return "row" if isinstance(last, int) else "key"
