"""The registry: every backend, by name. A new one is one module that lists its `BACKENDS`."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fluxconv.converters.backends.base import Backend, PlannedTensor, SourceSlice, Target
from fluxconv.converters.errors import MissingRequirement, UnknownBackend, UsageError

__all__ = [
    "Backend",
    "PlannedTensor",
    "SourceSlice",
    "Target",
    "all_backends",
    "choose_backends",
    "get_backend",
    "has_cuda",
    "missing",
    "require",
]


@cache
def all_backends() -> dict[str, Backend]:
    """Every registered backend by name, sorted."""
    found: dict[str, Backend] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for backend in getattr(loaded, "BACKENDS", ()):
            found[backend.name] = backend
    return dict(sorted(found.items()))


def get_backend(name: str) -> Backend:
    """The backend called `name`; raises `UnknownBackend` with the nearest names."""
    try:
        return all_backends()[name]
    except KeyError:
        raise UnknownBackend(name, all_backends()) from None


def choose_backends(wanted: Sequence[str | Backend]) -> tuple[Backend, ...]:
    """The backends of these names, in order; one that is an object already stays as it is.

    Raises `UnknownBackend`, and `UsageError` if two would make variants of one name.
    """
    found = tuple(get_backend(each) if isinstance(each, str) else each for each in wanted)
    labels = [backend.label for backend in found]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"the backend {label} was named twice")
    return found


def missing(backend: Backend, device: str) -> str | None:
    """What this machine lacks to quantize with `backend` on `device`, and how to mend it; None if
    it lacks nothing."""
    need = backend.requirement
    if not need.satisfied:
        have = f"{need.installed} is installed" if need.installed else "not installed"
        return f"needs {need.package} {need.minimum} or newer ({have}): {need.fix}"
    if (lack := backend.lack()) is not None:
        return lack
    if device not in backend.quantizes_on:
        return (
            f"quantizes on {' and '.join(backend.quantizes_on)}, not on {device}: use a machine "
            "with a GPU and a build of torch that knows it"
        )
    return None


def has_cuda() -> bool:
    """Whether a CUDA driver is here, as far as can be told without loading torch."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def require(backend: Backend, device: str) -> None:
    """Raise `MissingRequirement` unless this machine can quantize with `backend` on `device`."""
    lack = missing(backend, device)
    if lack is not None:
        raise MissingRequirement(f"{backend.name} {lack}")
