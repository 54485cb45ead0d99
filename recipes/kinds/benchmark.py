"""Measuring memory and time of a variant, into the report that validation wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work
from fluxconv.recipes.kinds.fetch import reopened
from fluxconv.recipes.kinds.reference import options_of, settings_of
from fluxconv.recipes.kinds.validate import packages, result_of


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.converters import open_variant
    from fluxconv.validators import validate

    source = reopened(work.only("fetch"))
    variant = open_variant(work.output / work.arguments["variant"])
    # What validation measured is kept in the variant, and not measured again.
    (report,) = validate(
        [variant],
        source,
        settings=settings_of(work.arguments, source.root),
        options=options_of(work.arguments, tuple(work.arguments["modes"])),
        hashes=work.only("reference")["hashes"],
        progress=work.progress,
    )
    return result_of(report, variant.root)


def _stands(result: Result, output: Path) -> bool:
    from fluxconv.converters.variant import hash_file
    from fluxconv.validators.report import REPORT_NAME

    variant: str = result["variant"]
    digest: str = result["digest"]
    report = output / variant / REPORT_NAME
    return report.is_file() and hash_file(report).sha256 == digest


KIND = Kind("benchmark", 1, _run, _stands, packages)
