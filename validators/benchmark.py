"""Memory and time of several models in several modes: the table of diffusers' guide."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

from fluxconv.converters.checkpoint import Checkpoint, Opening
from fluxconv.converters.modes import PLAIN, get_mode
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import Variant
from fluxconv.validators.drawing import SOURCE, VARIANT
from fluxconv.validators.machine import this_machine
from fluxconv.validators.performance import PICTURES, measure
from fluxconv.validators.report import Settings
from fluxconv.validators.results import Machine, Performance, Strict

_VERSIONED = ("fluxconv", "torch", "diffusers", "transformers")


class Measured(Strict):
    """One model in every mode. `backend` and `bits_per_weight` are null for a source; `size` is
    that of all files that are loaded from."""

    name: str
    backend: str | None
    bits_per_weight: float | None
    size: int
    performance: tuple[Performance, ...]


class Benchmark(Strict):
    """All models on one machine, drawing the same."""

    device: str
    machine: Machine
    versions: dict[str, str]
    settings: Settings
    models: tuple[Measured, ...]


def benchmark(
    models: Sequence[Checkpoint | Variant],
    settings: Settings,
    *,
    device: str = "cpu",
    modes: Sequence[str] = (PLAIN,),
    pictures: int = PICTURES,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure every model in every mode, each in a process of its own; what fails says why.

    Raises `UsageError` for an unknown mode. Nothing is written.
    """
    progress = progress or Silent()
    for mode in modes:
        get_mode(mode)

    def measured(model: Checkpoint | Variant) -> Measured:
        opening, role = _place(model)
        performance = tuple(
            measure(opening, role, device, settings, progress, mode=mode, pictures=pictures)
            for mode in modes
        )
        return Measured(
            name=model.name,
            backend=model.backend.label if isinstance(model, Variant) else None,
            bits_per_weight=model.manifest.bits_per_weight if isinstance(model, Variant) else None,
            size=_size(model),
            performance=performance,
        )

    packages = {m.backend.requirement.package for m in models if isinstance(m, Variant)}
    versions = {name: metadata.version(name) for name in (*_VERSIONED, *sorted(packages))}
    return Benchmark(
        device=device,
        machine=this_machine(device),
        versions={"python": platform.python_version(), **versions},
        settings=settings,
        models=tuple(map(measured, models)),
    )


def _place(model: Checkpoint | Variant) -> tuple[Opening, str]:
    if isinstance(model, Variant):
        return Opening(str(model.root)), VARIANT
    return model.opening, SOURCE


def _size(model: Checkpoint | Variant) -> int:
    if isinstance(model, Variant):
        return sum(record.size for record in model.manifest.files.values())
    return sum(path.stat().st_size for path in model.files.values())
