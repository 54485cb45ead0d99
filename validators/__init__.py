"""Proof that a variant still draws what its source draws, and the report of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.validators.candidates import Candidate, from_variant, of_flux_dev
    from fluxconv.validators.comparison import (
        Comparison,
        compare,
        read_comparison,
        write_comparison,
    )
    from fluxconv.validators.generation import Generated, generate
    from fluxconv.validators.importance import measure_importance
    from fluxconv.validators.recommendation import Recommendation, Suggestion, Unfit, Way, recommend
    from fluxconv.validators.report import Report, Settings, read_report, require_passed
    from fluxconv.validators.settings import load_settings
    from fluxconv.validators.validation import Options, validate

__all__ = [
    "Candidate",
    "Comparison",
    "Generated",
    "Options",
    "Recommendation",
    "Report",
    "Settings",
    "Suggestion",
    "Unfit",
    "Way",
    "compare",
    "from_variant",
    "generate",
    "load_settings",
    "measure_importance",
    "of_flux_dev",
    "read_comparison",
    "read_report",
    "recommend",
    "require_passed",
    "validate",
    "write_comparison",
]

__getattr__ = lazy(
    __name__,
    {
        "Candidate": "candidates",
        "from_variant": "candidates",
        "of_flux_dev": "candidates",
        "Comparison": "comparison",
        "compare": "comparison",
        "read_comparison": "comparison",
        "write_comparison": "comparison",
        "Generated": "generation",
        "generate": "generation",
        "measure_importance": "importance",
        "Recommendation": "recommendation",
        "Suggestion": "recommendation",
        "Unfit": "recommendation",
        "Way": "recommendation",
        "recommend": "recommendation",
        "Report": "report",
        "Settings": "report",
        "read_report": "report",
        "require_passed": "report",
        "load_settings": "settings",
        "Options": "validation",
        "validate": "validation",
    },
)
