"""A recipe together with where it stands: its folder, and the line of each of its parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fluxconv.recipes.problems import Place, Problem
from fluxconv.recipes.recipe import Recipe


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as it was read. `name` is what messages call it (the path as it was given), `folder`
    is what its paths are relative to, `lines` the line of each part; `problems` is what was wrong
    with it, in which case `recipe` is what is left without the wrong parts."""

    recipe: Recipe
    name: str
    folder: Path
    lines: Mapping[Place, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def path(self, text: str) -> Path:
        """The absolute path that a text of the recipe means; `~` is the home folder."""
        # Not Path's own, which raises for a user whom there is not.
        return (self.folder / os.path.expanduser(text)).absolute()  # noqa: PTH111

    def placed(self, problem: Problem) -> Problem:
        """The problem with its line: that of its place, or of the nearest part around it."""
        place = problem.place
        while place and place not in self.lines:
            place = place[:-1]
        return replace(problem, line=self.lines.get(place))


def as_file(given: Recipe | RecipeFile) -> RecipeFile:
    """A recipe that was made in Python stands in the current folder and has no lines."""
    if isinstance(given, RecipeFile):
        return given
    return RecipeFile(given, "recipe", Path.cwd())
