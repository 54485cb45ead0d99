"""Proof that a variant still draws what its source draws, and the report of it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxconv.validators.report import Report, Settings, read_report, require_passed
    from fluxconv.validators.settings import load_settings
    from fluxconv.validators.validation import validate

__all__ = [
    "Report",
    "Settings",
    "load_settings",
    "read_report",
    "require_passed",
    "validate",
]

_HOME = {
    "Report": "report",
    "Settings": "report",
    "read_report": "report",
    "require_passed": "report",
    "load_settings": "settings",
    "validate": "validation",
}


def __getattr__(name: str) -> Any:
    # Names are imported when first used, so that `fluxconv --help` stays quick.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
