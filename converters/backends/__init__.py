"""The registry: every backend, by name. A new one is one module that lists its `BACKENDS`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from fluxconv.converters.backends.base import Backend, PlannedTensor, SourceSlice, Target
from fluxconv.converters.errors import MissingRequirement, UnknownBackend, UsageError

__all__ = [
    "Backend",
    "PlannedTensor",
    "SourceSlice",
    "Target",
    "all_backends",
    "check_names",
    "get_backend",
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


def check_names(names: Sequence[str]) -> tuple[Backend, ...]:
    """The backends of these names, in order.

    Raises `UnknownBackend`, and `UsageError` if one is named twice.
    """
    if len(set(names)) != len(names):
        raise UsageError("a backend was named twice")
    return tuple(get_backend(name) for name in names)


def require(backend: Backend, device: str) -> None:
    """Raise `MissingRequirement` unless this machine can quantize with `backend` on `device`."""
    requirement = backend.requirement
    if not requirement.satisfied:
        have = f"{requirement.installed} is installed" if requirement.installed else "not installed"
        raise MissingRequirement(
            f"{backend.name} needs {requirement.package} {requirement.minimum} or newer ({have}): "
            f"{requirement.fix}"
        )
    if device not in backend.quantizes_on:
        raise MissingRequirement(
            f"{backend.name} quantizes on {' and '.join(backend.quantizes_on)}, not on {device}"
        )
