"""Small releases of the tiny Flux: a recipe as a file, and what happened in a run of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from validating import PROMPTS

from fluxconv.recipes.executors.base import Progressed
from fluxconv.recipes.graph import Graph
from fluxconv.recipes.markers import Marker

TINY_FLUX = Path(__file__).parent / "checkpoints" / "tiny-flux"
BACKEND = "torchao-int8"
VARIANT = f"tiny-flux-{BACKEND}"
#: So little is drawn that a release takes seconds.
VALIDATION = {
    "preset": "quick",
    "height": 64,
    "width": 64,
    "steps": 3,
    "max_sequence_length": 64,
    "seeds": [1],
    "noise": 1,
}


def write_recipe(folder: Path, **parts: Any) -> Path:
    """A recipe of one variant that measures no time; `parts` are added, or replace what is there.

    The source's drawings are kept beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    validation = {**VALIDATION, "prompts": "prompts.txt", "cache": "references"}
    recipe: dict[str, Any] = {
        "checkpoints": [str(TINY_FLUX)],
        "backends": [BACKEND],
        "validation": validation | parts.pop("validation", {}),
        "performance": None,
        **parts,
    }
    file = folder / "release.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


class Seen:
    """A `Watcher` that remembers; `do` is called with each word of progress."""

    def __init__(self, do: Callable[[Progressed], None] = lambda event: None) -> None:
        self._do = do
        self.begun: list[str] = []
        self.notes: list[str] = []

    def began(self, graph: Graph) -> None:
        pass

    def changed(self, marker: Marker, *, earlier: bool) -> None:
        if marker.state == "running":
            self.begun.append(marker.id)

    def progressed(self, event: Progressed) -> None:
        self._do(event)

    def note(self, text: str) -> None:
        self.notes.append(text)


def marker_file(output: Path, id: str) -> Path:
    return output / ".fluxconv-run" / "nodes" / f"{id}.json"


def marker(output: Path, id: str) -> dict[str, Any]:
    """A marker as it lies on the disk; empty if there is none."""
    file = marker_file(output, id)
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found
