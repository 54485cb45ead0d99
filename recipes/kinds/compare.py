"""All variants of a checkpoint side by side, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work, digest

if TYPE_CHECKING:
    from fluxconv.converters.variant import Variant


def reported(work: Work) -> list[Variant]:
    """The variants that were validated, in the order of the recipe."""
    from fluxconv.converters import open_variant

    return [open_variant(work.output / name) for name in work.results("validate")]


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.validators import read_report, write_comparison
    from fluxconv.validators.comparison import PAGE_NAME

    variants = reported(work)
    reports = [report for each in variants if (report := read_report(each)) is not None]
    # Not named after the checkpoint first: what is, is taken for a variant of it.
    folder = work.output / f"comparison-{work.id.partition('.')[2]}"
    write_comparison(reports, [each.root for each in variants], folder, work.progress)
    return {
        "page": f"{folder.name}/{PAGE_NAME}",
        "digest": digest({id: result["digest"] for id, result in work.inputs.items()}),
    }


def _stands(result: Result, output: Path) -> bool:
    page: str = result["page"]
    return (output / page).is_file()


KIND = Kind("compare", 1, _run, _stands)
