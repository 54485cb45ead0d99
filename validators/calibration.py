"""What is drawn to measure importance: never what a validation judges by, if we can help it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fluxconv.validators.report import Settings
from fluxconv.validators.settings import DEFAULT, load_settings

CALIBRATION = Path(__file__).parent / "prompts" / "calibration.yaml"


def calibration_settings(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    prompts: Path | None = None,
    limit: int | None = None,
) -> Settings:
    """The settings of the checkpoint in `folder` as `load_settings` finds them, with the first
    `limit` prompts (default: all).

    Prompts are those in the text file `prompts`, else the checkpoint's own: a fine-tune's layers
    see what matters only where it draws what it was trained on. Else they are the committed
    calibration set. Raises what `load_settings` raises.
    """
    found = load_settings(folder, overrides, prompts)
    chosen = found.prompts
    if chosen == committed_prompts(DEFAULT):
        chosen = committed_prompts(CALIBRATION)
    return found.model_copy(update={"prompts": chosen[:limit]})


def committed_prompts(file: Path) -> tuple[str, ...]:
    """The prompts of one of the committed sets."""
    return Settings.model_validate(yaml.safe_load(file.read_text("utf-8"))).prompts
