"""Holding a variant against its source: every layer but memory and time."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work
from fluxconv.recipes.kinds.fetch import reopened
from fluxconv.recipes.kinds.reference import PACKAGES, options_of, settings_of

if TYPE_CHECKING:
    from fluxconv.validators import Report

#: How the check of a layer says that it was not finished.
_UNFINISHED = ": not done: "


def result_of(report: Report, root: Path) -> dict[str, Any]:
    """A report by its sha256, with why it did not pass, if so.

    Raises `CheckFailed`, or `DiskFull`, if it is no judgement: a layer could not be finished, as
    where a process was killed, and may be another time.
    """
    from fluxconv.converters.errors import CheckFailed, DiskFull
    from fluxconv.converters.variant import hash_file
    from fluxconv.validators.report import REPORT_NAME

    for check in report.verdict.checks:
        if not check.passed and _UNFINISHED in check.text:
            full = os.strerror(errno.ENOSPC) in check.text
            raise DiskFull(check.text) if full else CheckFailed(check.text)
    failed = "; ".join(check.text for check in report.verdict.checks if not check.passed)
    found = {
        "variant": root.name,
        "manifest": report.manifest_sha256,
        "digest": hash_file(root / REPORT_NAME).sha256,
    }
    return {**found, "failed": failed} if failed else found


def packages(_arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """What a report names with its version."""
    return (*PACKAGES, "torchmetrics", "flip-evaluator")


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.converters import open_variant
    from fluxconv.validators import validate

    source = reopened(work.only("fetch"))
    variant = open_variant(work.output / work.arguments["variant"])
    (report,) = validate(
        [variant],
        source,
        settings=settings_of(work.arguments, source.root),
        options=options_of(work.arguments),
        hashes=work.only("reference")["hashes"],
        progress=work.progress,
    )
    return result_of(report, variant.root)


def _stands(result: Result, output: Path) -> bool:
    from fluxconv.converters.manifest import MANIFEST_NAME
    from fluxconv.converters.variant import hash_file
    from fluxconv.validators.report import REPORT_NAME

    variant: str = result["variant"]
    root = output / variant
    if not (root / REPORT_NAME).is_file() or not (root / MANIFEST_NAME).is_file():
        return False
    manifest: str = result["manifest"]
    return hash_file(root / MANIFEST_NAME).sha256 == manifest


KIND = Kind("validate", 1, _run, _stands, packages)
