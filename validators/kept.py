"""What was measured of a variant, kept in it, so that nothing is measured twice.

`.validation/` in the variant holds one JSON file a layer, with the digest of everything that
determined it, and the pictures that are drawn so far. A validation that was killed goes on where it
was; one with other thresholds judges again what the last one measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fluxconv.validators.drawing import write_whole
from fluxconv.validators.source_drawings import digest

FOLDER = ".validation"

T = TypeVar("T", bound=BaseModel)


class Kept:
    """The kept results of the variant in `root`, as far as they still hold.

    `fresh` forgets all of them.
    """

    def __init__(self, root: Path, *, fresh: bool = False) -> None:
        self._folder = root / FOLDER
        if fresh:
            shutil.rmtree(self._folder, ignore_errors=True)

    def result(
        self,
        layer: str,
        determined: Mapping[str, Any],
        kind: type[T],
        measure: Callable[[], T],
        *,
        still_there: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """The kept result of `layer` if it was `determined` by the same, else `measure()`, kept.

        `still_there` says whether what the result refers to exists. What `measure` raises is not
        kept.
        """
        file, key = self._folder / f"{layer}.json", digest(determined)
        found = _read(file, key, kind)
        if found is not None and still_there(found):
            return found
        made = measure()
        self._folder.mkdir(exist_ok=True)
        write_whole(file, json.dumps({"key": key, "result": made.model_dump(mode="json")}))
        return made

    def pictures(self, determined: Mapping[str, Any]) -> Path:
        """The folder for pictures that are `determined` by this; those of other drawings go."""
        place = self._folder / "drawn" / digest(determined)[:16]
        if place.parent.is_dir():
            for other in place.parent.iterdir():
                if other != place:
                    shutil.rmtree(other)
        place.mkdir(parents=True, exist_ok=True)
        return place

    def forget_pictures(self) -> None:
        """Remove drawn pictures: a report in place has its own."""
        shutil.rmtree(self._folder / "drawn", ignore_errors=True)


def _read(file: Path, key: str, kind: type[T]) -> T | None:
    try:
        found = json.loads(file.read_text("utf-8"))
        return kind.model_validate(found["result"]) if found["key"] == key else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, ValidationError):
        return None
