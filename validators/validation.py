"""Validating variants: layers from cheap to dear, then the verdict, then the report on disk."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import RootModel

from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import MissingRequirement, UsageError
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.modes import PLAIN
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import Variant, hash_file
from fluxconv.validators import verdict
from fluxconv.validators.kept import Kept
from fluxconv.validators.layers import LAYERS, Subject
from fluxconv.validators.machine import this_machine
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.reference import check_hashes, check_sizes, hash_reference
from fluxconv.validators.report import (
    CONTACT_SHEET,
    IMAGES,
    REPORT_NAME,
    Report,
    Settings,
    image_hashes,
)
from fluxconv.validators.results import Check, Machine, Performance
from fluxconv.validators.settings import load_settings
from fluxconv.validators.source_drawings import SourceDrawings
from fluxconv.validators.staging import staged_report
from fluxconv.validators.thresholds import load_thresholds
from fluxconv.validators.timing import Timing

_VERSIONED = ("fluxconv", "torch", "diffusers", "transformers", "torchmetrics", "flip-evaluator")


@dataclass(frozen=True)
class Options:
    """How a validation is done, apart from what is drawn.

    `mode` is how pipelines run while they draw, `modes` are those whose memory and time are
    measured. `fresh` measures anew what an earlier validation of the same files has measured.
    `cache` is where the source's drawings are kept (default: the user's cache).
    """

    device: str = "cpu"
    mode: str = PLAIN
    modes: Sequence[str] = (PLAIN,)
    keep_going: bool = False
    force: bool = False
    fresh: bool = False
    thresholds: Path | None = None
    cache: Path | None = None
    preset: str | None = None


def validate(
    variants: Sequence[Variant],
    reference: Checkpoint,
    *,
    settings: Settings | None = None,
    options: Options | None = None,
    hashes: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> tuple[Report, ...]:
    """Compare each variant with the checkpoint it was made from and write its report.

    Structure, weights, text encoder, steps, pictures, performance: a variant that fails a layer is
    not taken to the next, unless `keep_going`. The source is drawn once, and what was measured
    before is not measured again (see `kept`). `report.json` and `images/` of a variant are replaced
    when the new ones are complete; a failed verdict is a report like any other. Without `settings`,
    those of the reference are used (see `load_settings`); with `hashes`, what `hash_reference` gave
    for the files as they are, these are not read for it once more.

    Raises `BadInput` if the reference is not the variants' source (unless `force`; the report then
    says so) or if settings or thresholds are wrong, `MissingRequirement` for a device that is not
    here, `UsageError` for a variant given twice.
    """
    options, progress = options or Options(), progress or Silent()
    if len({variant.root for variant in variants}) != len(variants):
        raise UsageError("a variant was given twice")
    _require_device(options.device)
    settings = settings or load_settings(reference.root, preset=options.preset)
    rows = load_thresholds(options.thresholds)
    limits = [rows.for_bits(variant.backend.bits) for variant in variants]
    sizes = check_sizes(variants, reference, force=options.force)
    hashes = hashes or hash_reference(reference, progress)
    contents = check_hashes(variants, reference, hashes, force=options.force)
    source = SourceDrawings(
        reference, hashes, settings, options.device, options.mode, progress, options.cache
    )
    run = _Run(reference, source, settings, options, this_machine(options.device), progress)
    return tuple(
        run.validate(variant, limit, size or content)
        for variant, limit, size, content in zip(variants, limits, sizes, contents, strict=True)
    )


@dataclass
class _Findings:
    """What the layers found so far: the report's fields, and the checks."""

    results: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True)
class _Run:
    """What all variants of one call share."""

    reference: Checkpoint
    source: SourceDrawings
    settings: Settings
    options: Options
    machine: Machine
    progress: Progress

    def validate(self, variant: Variant, limits: verdict.Limits, difference: str | None) -> Report:
        """One variant, from its files to its report in place."""
        # Taken first: if the variant changes from here on, the report does not belong to it.
        manifest = hash_file(variant.root / MANIFEST_NAME).sha256
        versions = _versions(variant.backend.requirement.package)
        kept = Kept(variant.root, fresh=self.options.fresh)
        with staged_report(variant.root) as folder:
            with Worker(self.options.device) as worker:
                subject = Subject(
                    variant,
                    self.reference,
                    self.source,
                    self.settings,
                    self.options.device,
                    self.options.mode,
                    worker,
                    kept,
                    folder / IMAGES,
                    self.progress,
                    measured={
                        "manifest": manifest,
                        "reference": self.source.hashes,
                        "versions": versions,
                    },
                    drawn={
                        "source": self.source.key,
                        "settings": self.settings.model_dump(mode="json"),
                        "mode": self.options.mode,
                    },
                )
                found = self._layers(subject, limits)
            performance, of_source = self._performance(variant, kept, versions, found)
            report = Report(
                variant=variant.name,
                backend=variant.manifest.backend,
                size=sum(record.size for record in variant.manifest.files.values()),
                bits_per_weight=variant.manifest.bits_per_weight,
                manifest_sha256=manifest,
                reference=self.reference.source,
                reference_revision=self.reference.revision,
                reference_difference=difference,
                thresholds=self.options.thresholds.name if self.options.thresholds else None,
                settings=self.settings,
                preset=self.options.preset,
                device=self.options.device,
                machine=self.machine,
                versions=versions,
                noise_floor=self.source.noise_floor if "pictures" in found.results else None,
                performance=performance,
                source_performance=of_source,
                verdict=verdict.verdict(found.checks),
                **found.results,
            )
            if report.pictures:
                from fluxconv.validators.contact_sheet import contact_sheet

                contact_sheet(report, folder).save(folder / CONTACT_SHEET, optimize=True)
            report = report.model_copy(update={"images": image_hashes(folder)})
            text = report.model_dump_json(indent=2) + "\n"
            (folder / REPORT_NAME).write_text(text, "utf-8")
        kept.forget_pictures()
        return report

    def _layers(self, subject: Subject, limits: verdict.Limits) -> _Findings:
        found = _Findings()
        for layer in LAYERS:
            if not self._goes_on(found):
                break
            try:
                result = layer.result(subject)
            except LayerFailed as failure:
                title = layer.name.replace("_", " ")
                found.checks.append(verdict.failed_layer(title, f"not done: {failure}"))
                continue
            found.results[layer.name] = result.root if isinstance(result, RootModel) else result
            found.checks += layer.checks(subject, result, limits)
        return found

    def _performance(
        self, variant: Variant, kept: Kept, versions: Mapping[str, str], found: _Findings
    ) -> tuple[tuple[Performance, ...], tuple[Performance, ...]]:
        """Of the variant and of the source; neither if a layer failed."""
        if not self._goes_on(found):
            return (), ()
        timing = Timing(self.settings, self.options.device, self.machine, self.progress)
        modes = self.options.modes
        return (
            timing.of_variant(variant, modes, kept, versions),
            timing.of_source(self.reference, modes, self.source),
        )

    def _goes_on(self, found: _Findings) -> bool:
        return self.options.keep_going or all(check.passed for check in found.checks)


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
