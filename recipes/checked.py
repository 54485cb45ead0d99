"""What is known of a release before any of it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.recipes.problems import BadRecipe, Problem
from fluxconv.recipes.recipe import BackendRow, CheckpointRow, Recipe
from fluxconv.recipes.recipe_file import RecipeFile

if TYPE_CHECKING:
    from fluxconv.converters.backends import Backend
    from fluxconv.converters.checkpoint import Checkpoint
    from fluxconv.converters.planning import VariantPlan
    from fluxconv.validators.report import Settings


@dataclass(frozen=True)
class CheckedBackend:
    """A row of `backends` that stands up: `number` is its place in the recipe (from 0), `given` all
    its settings as plain JSON, paths absolute, so that
    `get_backend(row.backend).configured(given)` is `backend` again."""

    number: int
    row: BackendRow
    backend: Backend
    given: Mapping[str, Any]


@dataclass(frozen=True)
class CheckedVariant:
    """A variant to be made. `plan` is None where the source could not be looked at; `lacks` is what
    this machine lacks to make it, a sentence; `repository` is where it will be published."""

    name: str
    made_by: CheckedBackend
    plan: VariantPlan | None
    lacks: str | None
    repository: str | None


@dataclass(frozen=True)
class CheckedCheckpoint:
    """A row of `checkpoints` with its variants, in the order of the recipe.

    `id` and `base` are what `open_source` takes: absolute paths, or names on the Hub. `revision` is
    the commit that `row.revision` means now, None for a local one or if the Hub was not reached.
    `checkpoint` is the opened source; that of a repository on the Hub has headers and no weights,
    and stands only while the check does: do not open it again. `settings` are what will be drawn.
    """

    number: int
    row: CheckpointRow
    id: str
    base: str | None
    name: str
    revision: str | None
    checkpoint: Checkpoint | None
    settings: Settings | None
    variants: tuple[CheckedVariant, ...]
    licence: str | None
    download_bytes: int


@dataclass(frozen=True)
class Totals:
    """Bytes. `variants` is the exact size of all variants but for their configs, which take a few
    thousand bytes; `to_write` what of it is not there yet
    (with what is copied on the way), `to_download` what the Hub's cache lacks of the sources;
    `pass_memory` is what the widest pass takes at most beside the libraries, `draw_memory` what
    drawing with the largest pipeline takes; `disk_free` and `memory_free` are what this machine has
    now. None: not known."""

    variants: int | None
    to_write: int | None
    to_download: int
    pass_memory: int | None
    draw_memory: int | None
    disk_free: int | None
    memory_free: int


@dataclass(frozen=True)
class Checked:
    """A recipe with everything that can be known of it without work.

    `output` is an absolute path, or a URL as it was given; `device` is `cpu` or `cuda`. With
    problems it must not be run: `require()` raises them.
    """

    file: RecipeFile
    device: str
    output: Path | str
    checkpoints: tuple[CheckedCheckpoint, ...]
    totals: Totals
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return self.file.recipe

    @property
    def variants(self) -> tuple[CheckedVariant, ...]:
        """All variants, in the order of the recipe."""
        return tuple(each for source in self.checkpoints for each in source.variants)

    def require(self) -> None:
        """Raise `BadRecipe` with all problems, if there are any."""
        if self.problems:
            raise BadRecipe(self.file.name, self.problems)
