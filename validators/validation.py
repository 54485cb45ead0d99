"""Validating variants: layers from cheap to dear, then the verdict, then the report on disk."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import MissingRequirement, UsageError
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import Variant, hash_file
from fluxconv.validators import verdict
from fluxconv.validators.pictures import SourcePictures, compare_pictures
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.reference import check_reference
from fluxconv.validators.report import (
    CONTACT_SHEET,
    IMAGES,
    REPORT_NAME,
    Check,
    ComponentExecution,
    PicturesResult,
    Report,
    Settings,
    StructureResult,
    WeightsResult,
)
from fluxconv.validators.settings import load_settings
from fluxconv.validators.staging import staged_report
from fluxconv.validators.thresholds import Limits, load_thresholds

_VERSIONED = ("fluxconv", "torch", "diffusers", "transformers", "scikit-image")


def validate(
    variants: Sequence[Variant],
    reference: Checkpoint,
    *,
    settings: Settings | None = None,
    device: str = "cpu",
    keep_going: bool = False,
    force: bool = False,
    thresholds: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Report, ...]:
    """Compare each variant with the checkpoint it was made from and write its report.

    Structure, weights, pictures: a variant that fails a layer is not taken to the next, unless
    `keep_going`. The source's pictures are drawn once. `report.json` and `images/` of a variant are
    replaced when the new ones are complete; a failed verdict is a report like any other. Without
    `settings`, those of the reference are used (see `load_settings`).

    Raises `BadInput` if the reference is not the variants' source (unless `force`; the report then
    says so) or if settings or thresholds are wrong, `MissingRequirement` for a device that is not
    here, `UsageError` for a variant given twice.
    """
    progress = progress or Silent()
    if len({variant.root for variant in variants}) != len(variants):
        raise UsageError("a variant was given twice")
    _require_device(device)
    settings = settings or load_settings(reference.root)
    rows = load_thresholds(thresholds)
    limits = [rows.for_bits(variant.backend.bits) for variant in variants]
    differences = check_reference(variants, reference, force=force, progress=progress)
    with SourcePictures(reference, settings, device, progress) as source:
        run = _Run(
            reference,
            settings,
            device,
            keep_going,
            thresholds.name if thresholds else None,
            source,
            progress,
        )
        return tuple(
            run.validate(*each) for each in zip(variants, limits, differences, strict=True)
        )


@dataclass
class _Findings:
    """What the layers found so far."""

    structure: StructureResult
    checks: list[Check]
    weights: dict[str, WeightsResult] | None = None
    execution: dict[str, ComponentExecution] | None = None
    pictures: PicturesResult | None = None


@dataclass(frozen=True)
class _Run:
    """What all variants of one call share."""

    reference: Checkpoint
    settings: Settings
    device: str
    keep_going: bool
    thresholds: str | None
    source: SourcePictures
    progress: Progress

    def validate(self, variant: Variant, limits: Limits, difference: str | None) -> Report:
        """One variant, from its files to its report in place."""
        # Taken first: if the variant changes from here on, the report does not belong to it.
        manifest = hash_file(variant.root / MANIFEST_NAME).sha256
        with staged_report(variant.root) as folder, Worker() as worker:
            found = self._structure(worker, variant)
            if self._goes_on(found):
                self._weights(worker, variant, limits, found)
            if self._goes_on(found):
                self._pictures(worker, variant, limits, found, folder / IMAGES)
            report = Report(
                variant=variant.name,
                backend=variant.manifest.backend,
                manifest_sha256=manifest,
                reference=self.reference.source,
                reference_revision=self.reference.revision,
                reference_difference=difference,
                thresholds=self.thresholds,
                settings=self.settings,
                device=self.device,
                versions=_versions(variant.backend.requirement.package),
                structure=found.structure,
                weights=found.weights,
                execution=found.execution,
                pictures=found.pictures,
                verdict=verdict.verdict(found.checks),
            )
            if report.pictures:
                from fluxconv.validators.contact_sheet import contact_sheet

                sheet = contact_sheet(report, folder, variant.manifest.bits_per_weight)
                sheet.save(folder / CONTACT_SHEET, optimize=True)
            text = report.model_dump_json(indent=2) + "\n"
            (folder / REPORT_NAME).write_text(text, "utf-8")
        return report

    def _goes_on(self, found: _Findings) -> bool:
        return self.keep_going or all(check.passed for check in found.checks)

    def _structure(self, worker: Worker, variant: Variant) -> _Findings:
        try:
            answer = worker.run("structure", {"variant": str(variant.root)}, self.progress)
            result = StructureResult.model_validate(answer)
        except LayerFailed as failure:
            problem = f"the variant could not be opened: {failure}"
            result = StructureResult(files=0, tensors=0, problems=(problem,))
        return _Findings(result, verdict.structure_checks(result))

    def _weights(self, worker: Worker, variant: Variant, limits: Limits, found: _Findings) -> None:
        request = {
            "variant": str(variant.root),
            "reference": self.reference.opening._asdict(),
        }
        try:
            answer = worker.run("weights", request, self.progress)
        except LayerFailed as failure:
            found.checks.append(verdict.failed_layer("weights", f"not compared: {failure}"))
            return
        found.weights = {
            name: WeightsResult.model_validate(result) for name, result in answer.items()
        }
        found.checks += verdict.weights_checks(found.weights, limits)

    def _pictures(
        self, worker: Worker, variant: Variant, limits: Limits, found: _Findings, images: Path
    ) -> None:
        try:
            found.pictures, drawing = compare_pictures(
                self.source, worker, variant.root, self.settings, self.device, images, self.progress
            )
        except LayerFailed as failure:
            found.checks.append(verdict.failed_layer("pictures", f"not compared: {failure}"))
            for drawn in images.iterdir():  # half a set is no evidence
                drawn.unlink()
            return
        found.execution = drawing.execution
        found.checks += verdict.pictures_checks(found.pictures, limits)


def _require_device(device: str) -> None:
    if device == "cpu":
        return
    if device != "cuda":
        raise UsageError(f"unknown device '{device}'; known: cpu, cuda")
    import torch

    if not torch.cuda.is_available():
        raise MissingRequirement("torch finds no CUDA device here; use --device cpu")


def _versions(package: str) -> dict[str, str]:
    versions = {name: metadata.version(name) for name in (*_VERSIONED, package)}
    return {"python": platform.python_version(), **versions}
