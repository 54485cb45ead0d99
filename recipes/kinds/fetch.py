"""Opening a checkpoint: bringing it here, at one commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work, digest

if TYPE_CHECKING:
    from fluxconv.converters.checkpoint import Checkpoint


def reopened(fetched: Result) -> Checkpoint:
    """The checkpoint that a `fetch` node opened, opened again; raises what `open_checkpoint`
    raises, and `SourceChanged` if a file of it has another size or is gone."""
    from fluxconv.converters.checkpoint import open_checkpoint
    from fluxconv.converters.errors import SourceChanged

    if not _stands(fetched, Path()):
        raise SourceChanged(
            f"{fetched['opening']['path']}: changed since this run began; run again"
        )
    opening = fetched["opening"]
    found = open_checkpoint(
        opening["path"],
        source=fetched["source"],
        revision=fetched["revision"],
        base=opening["base"],
        allow_requantize=opening["allow_requantize"],
    )
    return replace(
        found,
        name=fetched["name"],
        front_matter=fetched["front_matter"],
        base=fetched["base"],
    )


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.hub.sources import open_source

    wanted = work.arguments
    found = open_source(
        wanted["id"],
        revision=wanted["revision"],
        source_id=wanted["source_id"],
        base=wanted["base"],
        allow_requantize=wanted["allow_requantize"],
        progress=work.progress,
    )
    sizes = {name: path.stat().st_size for name, path in sorted(found.files.items())}
    about = {
        "source": found.source,
        "revision": found.revision,
        "name": found.name,
        "base": found.base,
        "front_matter": json.loads(json.dumps(dict(found.front_matter), default=str)),
    }
    return {
        **about,
        "opening": found.opening._asdict(),
        "files": {str(path): sizes[name] for name, path in found.files.items()},
        # A commit fixes contents; for files of this machine their dates stand in the arguments.
        "digest": digest({**about, "files": sizes, "dates": wanted.get("files")}),
    }


def _stands(result: Result, _output: Path) -> bool:
    files: Mapping[str, int] = result["files"]
    return all(_size(Path(path)) == size for path, size in files.items())


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


KIND = Kind("fetch", 1, _run, _stands)
