"""`report.json`: what validation measured of one variant, and the verdict."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fluxconv.converters.errors import BadInput, CheckFailed
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.variant import Variant, hash_file

REPORT_NAME = "report.json"
IMAGES = "images"
CONTACT_SHEET = f"{IMAGES}/contact-sheet.png"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(_Strict):
    """How pictures are drawn; sizes in pixels. A checkpoint's `validation.yaml` has these keys."""

    height: int = Field(default=512, gt=0, le=8192, multiple_of=8)
    width: int = Field(default=512, gt=0, le=8192, multiple_of=8)
    steps: int = Field(default=8, gt=0, le=1000)
    guidance: float = Field(default=3.5, ge=0, le=100)
    max_sequence_length: int = Field(default=512, gt=0, le=512)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    prompts: tuple[str, ...] = Field(min_length=1)


class ComponentExecution(_Strict):
    """How a component ran: by its library, or decoded to bf16 first, and why."""

    mode: Literal["native", "decoded"]
    why: str = ""


class StructureResult(_Strict):
    """The files against the plan and the manifest, seen by a fresh process."""

    files: int
    tensors: int
    problems: tuple[str, ...]


class TensorError(_Strict):
    """Relative RMS error of one tensor, decoded, against its source."""

    name: str
    relative_rms: float


class StretchError(_Strict):
    """Relative RMS error of 256 neighbouring weights of one row, from `column` on.

    Relative to their own size, or to that of 256 average weights of the tensor if that is larger.
    """

    name: str
    row: int
    column: int
    relative_rms: float


class WeightsResult(_Strict):
    """Errors of one component; `relative_rms` is over all its quantized weights together.

    `quantized` and `kept` count source tensors; `worst` lists at most ten. `problems` names kept
    tensors that differ from their source, and tensors that could not be compared.
    """

    relative_rms: float
    worst: tuple[TensorError, ...]
    quantized: int = 0
    kept: int = 0
    worst_stretch: StretchError | None = None
    problems: tuple[str, ...] = ()


class Picture(_Strict):
    """One prompt and seed drawn by the source and by the variant; paths inside the variant.

    `psnr` is in dB (infinity, for equal pictures, is stored as null), `ssim` at most 1.
    """

    prompt: str
    seed: int
    source: str
    variant: str
    psnr: float | None
    ssim: float


class PicturesResult(_Strict):
    """All pictures and their means and minima; a null PSNR means that all pictures are equal.

    `seconds` is what the variant took to draw them all (loading not counted), `source_seconds` the
    source. `problems` names pictures that show nothing where the source's do.
    """

    pictures: tuple[Picture, ...]
    psnr_mean: float | None
    psnr_min: float | None
    ssim_mean: float
    ssim_min: float
    seconds: float
    source_seconds: float | None = None
    problems: tuple[str, ...] = ()


class Check(_Strict):
    """One threshold held against one measurement."""

    name: str
    value: float | None
    limit: float
    passed: bool
    text: str


class Verdict(_Strict):
    """Passed if every check passed."""

    passed: bool
    checks: tuple[Check, ...]


class Report(_Strict):
    """The whole of `report.json`. Layers that were not reached are null.

    `reference_difference` is null if the reference is the source that the manifest records; else
    it says what differs, and the comparison was forced. `thresholds` names the file whose limits
    were held against the measurements, null for fluxconv's own.
    """

    format_version: Literal[1] = 1
    variant: str
    backend: str
    manifest_sha256: str
    reference: str
    reference_revision: str | None
    reference_difference: str | None = None
    thresholds: str | None = None
    settings: Settings
    device: str
    versions: dict[str, str]
    structure: StructureResult
    weights: dict[str, WeightsResult] | None
    execution: dict[str, ComponentExecution] | None
    pictures: PicturesResult | None
    verdict: Verdict

    @property
    def is_decoded(self) -> bool:
        """Whether any component had to be decoded to be drawn here."""
        return any(e.mode == "decoded" for e in (self.execution or {}).values())


def read_report(variant: Variant) -> Report | None:
    """The variant's report, None if it has none; raises `BadInput` if it is garbled."""
    file = variant.root / REPORT_NAME
    if not file.is_file():
        return None
    try:
        return Report.model_validate_json(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BadInput(f"{file}: is not a report; run `fluxconv validate` again") from error


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
