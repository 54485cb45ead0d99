"""How variants will be held against their sources: files of limits and prompts, sizes, modes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fluxconv.converters.modes import find_mode, get_mode
from fluxconv.recipes.checked import CheckedBackend
from fluxconv.recipes.checks.findings import Findings
from fluxconv.recipes.checks.sources import Source
from fluxconv.recipes.recipe_file import RecipeFile
from fluxconv.validators.report import Settings
from fluxconv.validators.settings import load_settings, read_prompts
from fluxconv.validators.thresholds import load_thresholds

_PLACE = ("validation",)


def check_validation(
    file: RecipeFile, backends: Sequence[CheckedBackend | None], device: str, found: Findings
) -> None:
    """Everything about it that does not depend on the checkpoint."""
    wanted = file.recipe.validation
    if wanted.thresholds is not None:
        with found.collecting((*_PLACE, "thresholds")):
            rows = load_thresholds(file.path(wanted.thresholds))
            for each in backends:
                if each is not None:
                    rows.for_bits(each.backend.bits)
    if wanted.prompts is not None:
        with found.collecting((*_PLACE, "prompts")):
            read_prompts(file.path(wanted.prompts))
    elsewhere = file.recipe.executor.kind == "ray"
    why = get_mode(find_mode(wanted.offload, compiles=False).name).cannot_run(device)
    if why and not elsewhere:
        found.problem((*_PLACE, "offload"), f"`offload: {wanted.offload}`: {why}; remove it")
    if wanted.cache is not None and not _can_hold(file.path(wanted.cache)):
        found.problem((*_PLACE, "cache"), f"{file.path(wanted.cache)}: is no folder")
    _check_modes(file, device, found, elsewhere=elsewhere)


def _check_modes(file: RecipeFile, device: str, found: Findings, *, elsewhere: bool) -> None:
    performance = file.recipe.performance
    for number, name in enumerate(performance.modes if performance else ()):
        with found.collecting(("performance", "modes", number)):
            why = get_mode(name).cannot_run(device)
            if why and not elsewhere:
                found.remark(f"memory and time will not be measured in the mode {name}: {why}")


def drawn_settings(file: RecipeFile, source: Source, found: Findings) -> Settings | None:
    """What will be drawn with a checkpoint, which may bring settings of its own."""
    wanted = file.recipe.validation
    broken = any(problem.place == (*_PLACE, "prompts") for problem in found.problems)
    if source.checkpoint is None or broken:
        return None
    with found.collecting(_PLACE):
        return load_settings(
            source.checkpoint.root,
            wanted.overrides,
            None if wanted.prompts is None else file.path(wanted.prompts),
            preset=wanted.preset,
            limit=wanted.limit,
        )
    return None


def _can_hold(place: Path) -> bool:
    return place.is_dir() or not place.exists()
