"""The layers of a validation, from cheap to dear: what each measures, and what it is held against.

A layer is a row of `LAYERS`; its name is its field in the report.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, RootModel

from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import Variant
from fluxconv.validators import verdict
from fluxconv.validators.kept import Kept
from fluxconv.validators.pictures import compare_pictures
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.report import Settings
from fluxconv.validators.results import (
    Check,
    ComponentExecution,
    PicturesResult,
    StepsResult,
    StructureResult,
    TextResult,
    WeightsResult,
)
from fluxconv.validators.source_drawings import SourceDrawings

ByComponent = RootModel[dict[str, WeightsResult]]
Executions = RootModel[dict[str, ComponentExecution]]


@dataclass(frozen=True)
class Subject:
    """A variant under validation, and what its layers are measured with.

    `measured` is what determines every result, `drawn` what else determines those that need the
    source's drawings. `images` is where the report's pictures go.
    """

    variant: Variant
    reference: Checkpoint
    source: SourceDrawings
    settings: Settings
    device: str
    mode: str
    worker: Worker
    kept: Kept
    images: Path
    progress: Progress
    measured: Mapping[str, Any]
    drawn: Mapping[str, Any]

    def run(self, job: str, **request: Any) -> Any:
        """Have the variant's own process do a job."""
        return self.worker.run(job, {"variant": str(self.variant.root), **request}, self.progress)

    def run_drawing(self, job: str, **request: Any) -> Any:
        """The same for a job that runs the pipeline."""
        settings = self.settings.model_dump(mode="json")
        where = {"device": self.device, "mode": self.mode}
        return self.run(job, settings=settings, **where, **request)


@dataclass(frozen=True)
class Layer:
    """One row: what is measured, as which record, and the checks of it.

    `drawing` layers need the source's drawings. `is_kept` is false for what must be seen anew at
    every validation. `still_there` says whether the files that a kept result names exist.
    """

    name: str
    kind: type[BaseModel]
    measure: Callable[[Subject], Any]
    checks: Callable[[Subject, Any, verdict.Limits], list[Check]]
    drawing: bool = True
    is_kept: bool = True
    still_there: Callable[[Subject, Any], bool] = lambda _subject, _result: True

    def result(self, subject: Subject) -> Any:
        """Measure, or take what is kept; raises `LayerFailed`."""
        if not self.is_kept:
            return self.measure(subject)
        if self.drawing:
            subject.source.ensure()
        determined = {**subject.measured, **(subject.drawn if self.drawing else {})}
        return subject.kept.result(
            self.name,
            determined,
            self.kind,
            lambda: self.measure(subject),
            still_there=lambda found: self.still_there(subject, found),
        )


def _structure(subject: Subject) -> StructureResult:
    try:
        return StructureResult.model_validate(subject.run("structure"))
    except LayerFailed as failure:
        problem = f"the variant could not be opened: {failure}"
        return StructureResult(files=0, tensors=0, problems=(problem,))


def _weights(subject: Subject) -> ByComponent:
    opening = subject.reference.opening._asdict()
    return ByComponent.model_validate(subject.run("weights", reference=opening))


def _execution(subject: Subject) -> Executions:
    return Executions.model_validate(subject.run_drawing("execution"))


def _text_encoder(subject: Subject) -> TextResult:
    found = subject.run_drawing("text_encoder", recordings=str(subject.source.folder))
    return TextResult.model_validate(found)


def _steps(subject: Subject) -> StepsResult:
    found = subject.run_drawing("steps", recordings=str(subject.source.folder))
    return StepsResult.model_validate(found)


def _pictures(subject: Subject) -> PicturesResult:
    folder = subject.kept.pictures({**subject.measured, **subject.drawn})
    subject.run_drawing("draw", folder=str(folder))
    return compare_pictures(subject.source, folder, subject.settings, subject.images)


def _pictures_still_there(subject: Subject, found: PicturesResult) -> bool:
    """Bring the pictures of the report before into the new one."""
    for picture in found.pictures:
        for name in (picture.source, picture.variant, picture.flip_map):
            here = subject.variant.root / name
            if not here.is_file():
                return False
            link_or_copy(here, subject.images / here.name)
    return True


def link_or_copy(source: Path, place: Path) -> None:
    """The same file under another name, where the disk can; neither is ever written to again."""
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def _weights_checks(subject: Subject, found: ByComponent, limits: verdict.Limits) -> list[Check]:
    options = subject.variant.backend.options
    weighted = getattr(options, "importance", None) is not None
    return verdict.weights_checks(found.root, limits, weighted=weighted)


LAYERS = (
    Layer(
        "structure",
        StructureResult,
        _structure,
        lambda _, found, limits: verdict.structure_checks(found),
        drawing=False,
        is_kept=False,
    ),
    Layer(
        "weights",
        ByComponent,
        _weights,
        _weights_checks,
        drawing=False,
    ),
    Layer("execution", Executions, _execution, lambda *_: []),
    Layer(
        "text_encoder",
        TextResult,
        _text_encoder,
        lambda _, found, limits: verdict.text_checks(found, limits),
    ),
    Layer(
        "steps", StepsResult, _steps, lambda _, found, limits: verdict.steps_checks(found, limits)
    ),
    Layer(
        "pictures",
        PicturesResult,
        _pictures,
        lambda _, found, limits: verdict.pictures_checks(found, limits),
        still_there=_pictures_still_there,
    ),
)
