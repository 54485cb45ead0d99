"""Several reports of one reference side by side: `comparison.json`, a contact sheet, a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from fluxconv.converters.errors import BadInput
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.staging import locked, sync, sync_tree
from fluxconv.converters.variant import Variant, hash_file, open_variant
from fluxconv.validators.report import Report, Settings, read_report
from fluxconv.validators.results import Machine, NoiseFloor, Performance, Strict

COMPARISON_NAME = "comparison.json"
PAGE_NAME = "report.html"
SHEET_NAME = "contact-sheet.png"

_PARTIAL = ".comparison.partial"


class Comparison(Strict):
    """The whole of `comparison.json`: the reports, and what they have in common.

    `machine` and `device` are null if the reports were made on several: then memory and times
    cannot be compared, and neither `noise_floor` nor `source_performance` belongs to all of them.
    `preset` is null if there was none, or not the same.
    """

    format_version: Literal[1] = 1
    reference: str
    reference_revision: str | None
    settings: Settings
    preset: str | None
    machine: Machine | None
    device: str | None
    noise_floor: NoiseFloor | None
    source_performance: tuple[Performance, ...]
    reports: tuple[Report, ...] = Field(min_length=1)

    @property
    def passed(self) -> bool:
        """Whether every variant passed."""
        return all(report.verdict.passed for report in self.reports)


def compare(reports: Sequence[Report]) -> Comparison:
    """What the reports share, and the reports; raises `BadInput` if they cannot be compared."""
    if not reports:
        raise BadInput("there is no report to compare; run `fluxconv validate` first")
    first = reports[0]
    for other in reports[1:]:
        _check_comparable(first, other)
    here = len({(report.machine, report.device) for report in reports}) == 1
    floors = [report.noise_floor for report in reports if report.noise_floor]
    timed = [report.source_performance for report in reports if report.source_performance]
    return Comparison(
        reference=first.reference,
        reference_revision=first.reference_revision,
        settings=first.settings,
        preset=first.preset if len({report.preset for report in reports}) == 1 else None,
        machine=first.machine if here else None,
        device=first.device if here else None,
        noise_floor=floors[0] if here and floors else None,
        source_performance=timed[0] if here and timed else (),
        reports=tuple(reports),
    )


def comparable_beside(variants: Sequence[Variant], report: Report) -> list[tuple[Variant, Report]]:
    """The other variants in the folders of these, of the same checkpoint, whose reports are of the
    files as they are and can be compared with `report`: who validates one more wants to see all."""
    here = {variant.root for variant in variants}
    checkpoint = variants[0].manifest.checkpoint
    found = []
    for manifest in sorted({m for root in here for m in root.parent.glob(f"*/{MANIFEST_NAME}")}):
        try:
            other = open_variant(manifest.parent)
            theirs = read_report(other)
            if other.root in here or other.manifest.checkpoint != checkpoint or theirs is None:
                continue
            if theirs.manifest_sha256 != hash_file(manifest).sha256:
                continue
            _check_comparable(report, theirs)
        except BadInput:
            continue
        found.append((other, theirs))
    return found


def read_comparison(file: Path) -> Comparison:
    """A `comparison.json`; raises `BadInput` if it is not one."""
    try:
        return Comparison.model_validate_json(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BadInput(f"{file}: is not a comparison; run `fluxconv validate` again") from error


def write_comparison(
    reports: Sequence[Report],
    folders: Sequence[Path],
    folder: Path,
    progress: Progress | None = None,
) -> None:
    """Write `comparison.json`, `contact-sheet.png` and `report.html` into `folder`.

    `folders` are the variants' own, in the order of `reports`: their pictures lie there. What stood
    in `folder` under these names is replaced, `comparison.json` last, when all of it is complete.
    Raises `BadInput` if the reports cannot be compared, a picture is missing or `folder` cannot be
    written, `OutputExists` if another run is writing there.
    """
    comparison = compare(reports)
    from fluxconv.validators.contact_sheet import comparison_sheet
    from fluxconv.validators.page.writing import write_page

    with _staged(folder) as partial:
        write_page(comparison, folders, partial / PAGE_NAME, progress or Silent())
        comparison_sheet(reports, folders).save(partial / SHEET_NAME)
        text = comparison.model_dump_json(indent=2)
        (partial / COMPARISON_NAME).write_text(text + "\n", "utf-8")


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A hidden folder in `folder`, whose files take their places when the block ends well."""
    busy = f"{folder}: another run is writing its comparison"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / _PARTIAL, busy) as partial:
            yield partial
            sync_tree(partial)
            # It goes first and comes last: beside it, the other files are always its own.
            (folder / COMPARISON_NAME).unlink(missing_ok=True)
            for name in (SHEET_NAME, PAGE_NAME, COMPARISON_NAME):
                (partial / name).rename(folder / name)
            sync(folder)
    except OSError as error:
        raise BadInput(f"{folder}: the comparison cannot be written: {error.strerror}") from error


#: What must be equal for two reports to be compared, in the words of the refusal.
_SAME: tuple[tuple[str, Callable[[Report], Any]], ...] = (
    ("another reference", lambda report: (report.reference, report.reference_revision)),
    ("other prompts", lambda report: report.settings.prompts),
    ("other seeds", lambda report: report.settings.seeds),
    ("pictures of another size", lambda report: (report.settings.width, report.settings.height)),
    ("other settings", lambda report: report.settings),
)


def _check_comparable(first: Report, other: Report) -> None:
    for what, value in _SAME:
        if value(first) != value(other):
            raise BadInput(
                f"{other.variant}: was validated with {what} than {first.variant}, so the two "
                "cannot be compared; run `fluxconv validate` once for both"
            )
