"""`report.json`: what validation measured of one variant, and the verdict.

`docs/validation.md` explains every field; the parts of each layer are in `results`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fluxconv.converters.errors import BadInput, CheckFailed
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.variant import Variant, hash_file
from fluxconv.validators.results import (
    ComponentExecution,
    Machine,
    NoiseFloor,
    Performance,
    PicturesResult,
    StepsResult,
    Strict,
    StructureResult,
    TextResult,
    Verdict,
    WeightsResult,
)

REPORT_NAME = "report.json"
IMAGES = "images"
CONTACT_SHEET = f"{IMAGES}/contact-sheet.png"


class Settings(Strict):
    """How pictures are drawn; sizes in pixels. A checkpoint's `validation.yaml` has these keys.

    The steps of the first `trajectories` drawings are compared one by one, and the first `noise`
    pictures are drawn again by the source, for the noise floor.
    """

    height: int = Field(default=512, gt=0, le=8192, multiple_of=8)
    width: int = Field(default=512, gt=0, le=8192, multiple_of=8)
    steps: int = Field(default=8, gt=0, le=1000)
    guidance: float = Field(default=3.5, ge=0, le=100)
    max_sequence_length: int = Field(default=512, gt=0, le=512)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    prompts: tuple[str, ...] = Field(min_length=1)
    trajectories: int = Field(default=4, gt=0)
    noise: int = Field(default=2, ge=0)


class Report(Strict):
    """The whole of `report.json`. Layers that were not reached are null.

    `size` is that of the whole variant, `bits_per_weight` that of its quantized components.
    `reference_difference` is null if the reference is the source that the manifest records; else
    it says what differs, and the comparison was forced. `thresholds` names the file whose limits
    were held against the measurements, null for fluxconv's own. `source_performance` is the
    source's, measured in the same run. `images` has the sha256 of every picture beside the report.
    """

    format_version: Literal[2] = 2
    variant: str
    backend: str
    size: int
    bits_per_weight: float
    manifest_sha256: str
    reference: str
    reference_revision: str | None
    reference_difference: str | None = None
    thresholds: str | None = None
    settings: Settings
    preset: str | None = None
    device: str
    machine: Machine
    versions: dict[str, str]
    structure: StructureResult
    weights: dict[str, WeightsResult] | None = None
    text_encoder: TextResult | None = None
    steps: StepsResult | None = None
    execution: dict[str, ComponentExecution] | None = None
    pictures: PicturesResult | None = None
    noise_floor: NoiseFloor | None = None
    performance: tuple[Performance, ...] = ()
    source_performance: tuple[Performance, ...] = ()
    verdict: Verdict
    images: dict[str, str] = Field(default_factory=dict)

    @property
    def is_decoded(self) -> bool:
        """Whether any component had to be decoded to be drawn here."""
        return any(e.mode == "decoded" for e in (self.execution or {}).values())

    @property
    def picture_names(self) -> tuple[str, ...]:
        """Every picture that it names, relative to its folder."""
        pictures = self.pictures.pictures if self.pictures else ()
        named = {name for each in pictures for name in (each.source, each.variant, each.flip_map)}
        return tuple(sorted(named | set(self.images)))


def read_report(variant: Variant) -> Report | None:
    """The variant's report, None if it has none; raises `BadInput` if it is garbled."""
    file = variant.root / REPORT_NAME
    if not file.is_file():
        return None
    try:
        return Report.model_validate_json(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BadInput(f"{file}: is not a report; run `fluxconv validate` again") from error


def image_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every picture of a report in `folder`, by its name there."""
    pictures = sorted(file for file in (folder / IMAGES).rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hash_file(file).sha256 for file in pictures}


def picture_problems(report: Report, hash_of: Callable[[str], str | None]) -> tuple[str, ...]:
    """What is wrong with the pictures that a report stands on, one sentence each; `hash_of` gives
    the sha256 of a name as it is now, None where it is missing."""
    return tuple(
        f"{name}: is not the picture that the report was made with; run `fluxconv validate` again"
        for name in report.picture_names
        if report.images.get(name) is None or hash_of(name) != report.images[name]
    )


def require_passed(variant: Variant) -> Report:
    """The variant's report if it passed and belongs to the manifest as it is now.

    Raises `CheckFailed` saying which of these does not hold.
    """
    report = read_report(variant)
    if report is None:
        raise CheckFailed(f"{variant.root}: has no report; run `fluxconv validate` first")
    if report.manifest_sha256 != hash_file(variant.root / MANIFEST_NAME).sha256:
        raise CheckFailed(
            f"{variant.root}: changed since its report was made; run `fluxconv validate` again"
        )
    if report.reference_difference is not None:
        raise CheckFailed(
            f"{variant.root}: was compared with something else than its source (--force); run "
            "`fluxconv validate` with the source"
        )
    if not report.verdict.passed:
        failed = "; ".join(check.text for check in report.verdict.checks if not check.passed)
        raise CheckFailed(f"{variant.root}: did not pass validation: {failed}")
    return report
