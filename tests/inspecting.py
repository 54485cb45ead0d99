"""What the tests of `inspect` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from fluxconv.commands.main import cli
from fluxconv.converters.inspection import InspectedComponent, inspect


def only(path: Path) -> InspectedComponent:
    """The one component that is there."""
    (component,) = inspect(path).components
    return component


def answer(path: Path, *options: str) -> dict[str, Any]:
    """The JSON object that the command prints."""
    done = CliRunner().invoke(cli, ["inspect", str(path), "--json", *options])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found
