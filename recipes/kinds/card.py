"""Writing the card of a variant that passed; signing it, if the recipe says so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work, digest

if TYPE_CHECKING:
    from fluxconv.converters.variant import Variant


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.cards import merge_blind_tests, repository_name, write_card
    from fluxconv.cards.writing import GENERATED
    from fluxconv.converters import open_variant
    from fluxconv.converters.variant import hash_file
    from fluxconv.validators import require_passed

    wanted = work.arguments
    variant = open_variant(work.output / wanted["variant"])
    require_passed(variant)
    tests = [Path(each["path"]) for each in wanted["blind_tests"]]
    merge_blind_tests(_tests_of(variant, tests), [variant])
    namespace = wanted["namespace"]
    write_card(
        variant,
        siblings=_passed(work),
        repository=f"{namespace}/{repository_name(variant)}" if namespace else None,
    )
    if wanted["sign"] is not None:
        from fluxconv.hub.signing import sign

        sign(variant, Path(wanted["sign"]["path"]))
    files = {
        name: hash_file(variant.root / name).sha256
        for name in GENERATED
        if (variant.root / name).is_file()
    }
    (own,) = (r for id, r in work.inputs.items() if id == f"validate.{variant.name}")
    return {"variant": variant.name, "files": files, "digest": digest([own["manifest"], files])}


def _passed(work: Work) -> list[Variant]:
    """The variants for the table: those of the same checkpoint that passed."""
    from fluxconv.converters import open_variant

    return [
        open_variant(work.output / name)
        for name, result in work.results("validate").items()
        if not result.get("failed")
    ]


def _tests_of(variant: Variant, files: list[Path]) -> list[Path]:
    """The blind tests that say something of this variant; one may be about others."""
    from fluxconv.validators.blind_test import read_blind_test

    return [
        file
        for file in files
        if any(result.variant == variant.name for result in read_blind_test(file).results)
    ]


def _stands(result: Result, output: Path) -> bool:
    return all((output / result["variant"] / name).is_file() for name in result["files"])


KIND = Kind("card", 1, _run, _stands)
