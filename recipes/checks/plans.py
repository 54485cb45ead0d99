"""What will be made of each checkpoint: planned from headers, so sizes are exact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fluxconv.cards.naming import repository_called
from fluxconv.converters.backends.gguf import Gguf
from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import FluxconvError, MissingRequirement
from fluxconv.converters.planning import VariantPlan, plan
from fluxconv.converters.visible import visible
from fluxconv.recipes.checked import CheckedBackend, CheckedVariant
from fluxconv.recipes.checks.backends import lacks
from fluxconv.recipes.checks.findings import Findings
from fluxconv.recipes.checks.sources import Source
from fluxconv.recipes.contradictions import meant_for
from fluxconv.recipes.recipe import Recipe


def check_plans(
    recipe: Recipe,
    source: Source,
    backends: Sequence[CheckedBackend | None],
    device: str,
    found: Findings,
) -> tuple[CheckedVariant, ...]:
    """The variants of one checkpoint; those that cannot be made are left out."""
    variants = []
    for each in backends:
        if each is None or not meant_for(each.row, source.row):
            continue
        planned = None
        if source.checkpoint is not None:
            planned = _planned(recipe, source.checkpoint, source, each, found)
            if planned is None:
                continue
        lacking = lacks(each.backend, device, elsewhere=recipe.executor.kind == "ray")
        if lacking is not None:
            sentence = f"{each.backend.name} {lacking}"
            found.problem(("backends", each.number), sentence, MissingRequirement.exit_code)
        if planned is not None and planned.remark is not None:
            found.remark(f"{planned.name}: {planned.remark}")
        name = f"{source.name}-{each.backend.label}"
        repository = _repository(recipe, source.name, name, each)
        variants.append(CheckedVariant(name, each, planned, lacking, repository))
    return tuple(variants)


def _planned(
    recipe: Recipe,
    checkpoint: Checkpoint,
    source: Source,
    each: CheckedBackend,
    found: Findings,
) -> VariantPlan | None:
    try:
        (planned,) = plan(checkpoint, [each.backend], recipe.components)
    except FluxconvError as error:
        # What is wrong with the checkpoint, whatever the backend, is said once.
        is_backend = str(error).startswith(each.backend.name)
        with found.collecting(("backends", each.number) if is_backend else source.place):
            raise
        return None
    _ = planned.nbytes  # looks at files that may stand no longer than the check
    return planned


def check_names(variants: Iterable[CheckedVariant], found: Findings) -> None:
    """No two variants may have one name, here or on the Hub; case makes no difference to some."""
    folders: dict[str, CheckedVariant] = {}
    places: dict[tuple[str, str], CheckedVariant] = {}
    for each in variants:
        at = ("backends", each.made_by.number)
        before = folders.setdefault(each.name.casefold(), each)
        if before is not each:
            # Two checkpoints of one name are told as that.
            if before.made_by is not each.made_by:
                sentence = f"two variants would be called {visible(each.name)}; remove one"
                found.problem(at, sentence)
        elif each.repository is not None:
            before = places.setdefault((each.repository.casefold(), _inner(each)), each)
            if before is not each:
                found.problem(
                    at,
                    f"{visible(before.name)} and {visible(each.name)} would both be published as "
                    f"{each.repository}; rename one of the checkpoints",
                )


def _inner(variant: CheckedVariant) -> str:
    """What tells variants of a shared repository apart."""
    backend = variant.made_by.backend
    return backend.file_label.casefold() if isinstance(backend, Gguf) else ""


def _repository(recipe: Recipe, checkpoint: str, name: str, each: CheckedBackend) -> str | None:
    if recipe.publication is None:
        return None
    shared = each.backend.container == "gguf"
    called = repository_called(f"{checkpoint}-GGUF" if shared else name)
    return f"{recipe.publication.namespace}/{called}"
