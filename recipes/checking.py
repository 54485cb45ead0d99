"""Checking a recipe: everything that can be known of a release before any of it is done."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fluxconv.converters.backends import has_cuda
from fluxconv.converters.errors import FluxconvError, MissingRequirement
from fluxconv.converters.modes import find_mode
from fluxconv.converters.planning import VariantPlan
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.write_behind import WRITE_BEHIND
from fluxconv.recipes.checked import Checked, CheckedCheckpoint, CheckedVariant, Totals
from fluxconv.recipes.checks.backends import check_backends
from fluxconv.recipes.checks.findings import Findings
from fluxconv.recipes.checks.output import check_output, check_room, output_of, still_to_write
from fluxconv.recipes.checks.plans import check_names, check_plans
from fluxconv.recipes.checks.publication import check_card, check_publication
from fluxconv.recipes.checks.sources import Source, check_sources
from fluxconv.recipes.checks.validation import check_validation, drawn_settings
from fluxconv.recipes.devices import device_of
from fluxconv.recipes.reading import read_leniently
from fluxconv.recipes.recipe import Recipe
from fluxconv.recipes.recipe_file import RecipeFile, as_file
from fluxconv.validators.machine import free_memory
from fluxconv.validators.memory import needed, pipeline_parts


def check_file(path: Path | str, *, progress: Progress | None = None) -> Checked:
    """Check the recipe in a file. What is wrong with the file itself stands among the problems, as
    long as anything of it can be checked; else raises `BadRecipe`."""
    return check(read_leniently(path), progress=progress)


def check(
    recipe: Recipe | RecipeFile, *, at_once: bool = False, progress: Progress | None = None
) -> Checked:
    """Look at everything that a recipe speaks of, without work: no weight is read or brought here.

    Of checkpoints on the Hub the headers are read, which is enough for exact sizes. Where the Hub
    cannot be reached, `remarks` say what was not looked at. Nothing is raised for what is wrong: it
    stands in `problems`, all at once. If the recipe is to be run `at_once`, a token for the Hub
    must be there, too.
    """
    file, progress = as_file(recipe), progress or Silent()
    found = Findings(file)
    device = _device(file.recipe, found)
    output = output_of(file, found)
    backends = check_backends(file, found)
    check_validation(file, backends, device, found)
    check_card(file, found)
    with tempfile.TemporaryDirectory(prefix="fluxconv-") as name:
        folder = Path(name).resolve()
        found.hide(folder)
        sources = check_sources(file, folder, found, progress)
        checkpoints = [
            _checked(source, check_plans(file.recipe, source, backends, device, found))
            for source in sources
        ]
        checkpoints = [
            replace(each, settings=drawn_settings(file, source, found))
            for each, source in zip(checkpoints, sources, strict=True)
        ]
        variants = [variant for each in checkpoints for variant in each.variants]
        check_names(variants, found)
        if isinstance(output, Path):
            check_output(output, sources, variants, found)
        totals = _totals(output, sources, checkpoints, device, file.recipe, found)
    check_publication(file, variants, found, at_once=at_once)
    return Checked(
        file, device, output, tuple(checkpoints), totals, found.sorted(), tuple(found.remarks)
    )


def _device(recipe: Recipe, found: Findings) -> str:
    if recipe.device != "cpu" and has_cuda():
        try:
            return device_of(recipe.device)
        except MissingRequirement as error:
            sentence = str(error)
    elif recipe.device == "cuda":
        sentence = "device cuda: there is no CUDA GPU here; write `device: cpu`"
    else:
        return "cpu"
    if recipe.executor.kind == "ray":
        found.remark("this machine has no CUDA GPU; those that do the work need one")
        return "cuda"
    found.problem(("device",), sentence, MissingRequirement.exit_code)
    return "cpu"


def _checked(source: Source, variants: tuple[CheckedVariant, ...]) -> CheckedCheckpoint:
    return CheckedCheckpoint(
        source.number,
        source.row,
        source.id,
        source.base,
        source.name,
        source.checkpoint.revision if source.checkpoint else None,
        source.checkpoint,
        None,
        variants,
        source.licence,
        source.missing,
    )


def _totals(
    output: Path | str,
    sources: Sequence[Source],
    checkpoints: Sequence[CheckedCheckpoint],
    device: str,
    recipe: Recipe,
    found: Findings,
) -> Totals:
    plans = [[v.plan for v in each.variants if v.plan] for each in checkpoints]
    known = all(each.checkpoint is not None for each in checkpoints)
    to_download = sum(source.missing for source in sources)
    to_write = free = None
    if isinstance(output, Path):
        to_write = sum(
            still_to_write(output, source, own, device, found)
            for source, own in zip(sources, plans, strict=True)
        )
        free = check_room(output, to_write, to_download, found)
    draw = max((_draw_memory(each, device, recipe) for each in checkpoints), default=0)
    memory = free_memory()
    if draw > memory and recipe.executor.kind == "local":
        found.remark(
            f"drawing takes about {draw / 1e9:.1f} GB of main memory, and {memory / 1e9:.1f} GB "
            "are free here: validation would be refused"
        )
    return Totals(
        sum(item.nbytes for own in plans for item in own) if known else None,
        to_write if known else None,
        to_download,
        max((_pass_memory(own) for own in plans if own), default=None),
        draw or None,
        free,
        memory,
    )


def _pass_memory(plans: Sequence[VariantPlan]) -> int:
    """What one pass for all variants takes: what is read ahead and encoded is there once, what
    waits to be written for each."""
    first, *others = sorted(plans, key=lambda item: -item.peak_memory)
    return first.peak_memory + sum(min(WRITE_BEHIND, item.weight_bytes) for item in others)


def _draw_memory(each: CheckedCheckpoint, device: str, recipe: Recipe) -> int:
    """What drawing with the source takes, in bf16; no variant takes more."""
    if each.checkpoint is None or each.settings is None:
        return 0
    try:
        parts = pipeline_parts(each.checkpoint, device, each.settings)
    except FluxconvError:
        return 0  # a lone component: told already
    return needed(parts, device, find_mode(recipe.validation.offload, compiles=False)).main
