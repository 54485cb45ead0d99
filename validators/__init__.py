"""Proof that a variant still draws what its source draws, and the report of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.validators.comparison import write_comparison
    from fluxconv.validators.report import Report, Settings, read_report, require_passed
    from fluxconv.validators.settings import load_settings
    from fluxconv.validators.validation import Options, validate

__all__ = [
    "Options",
    "Report",
    "Settings",
    "load_settings",
    "read_report",
    "require_passed",
    "validate",
    "write_comparison",
]

__getattr__ = lazy(
    __name__,
    {
        "Report": "report",
        "Settings": "report",
        "read_report": "report",
        "require_passed": "report",
        "load_settings": "settings",
        "Options": "validation",
        "validate": "validation",
        "write_comparison": "comparison",
    },
)
