"""Recipes: a whole release as one file, and what runs it on one machine or many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.recipes.checked import Checked
    from fluxconv.recipes.checking import check
    from fluxconv.recipes.executors.base import Executor
    from fluxconv.recipes.markers import Marker
    from fluxconv.recipes.reading import read_recipe
    from fluxconv.recipes.recipe import Recipe
    from fluxconv.recipes.result import RunResult
    from fluxconv.recipes.running import run
    from fluxconv.recipes.standing import RunStatus, status
    from fluxconv.recipes.watching import Watcher

__all__ = [
    "Checked",
    "Executor",
    "Marker",
    "Recipe",
    "RunResult",
    "RunStatus",
    "Watcher",
    "check",
    "read_recipe",
    "run",
    "status",
]

__getattr__ = lazy(
    __name__,
    {
        "Checked": "checked",
        "check": "checking",
        "Executor": "executors.base",
        "Marker": "markers",
        "read_recipe": "reading",
        "Recipe": "recipe",
        "RunResult": "result",
        "run": "running",
        "RunStatus": "standing",
        "status": "standing",
        "Watcher": "watching",
    },
)
