"""One part of a pass that is split over several workers; `assemble` makes the variants of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.recipes.devices import device_of
from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work, digest
from fluxconv.recipes.kinds.fetch import reopened
from fluxconv.recipes.kinds.quantize import backends_of, packages

if TYPE_CHECKING:
    from fluxconv.converters.backends import Backend


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.converters import quantize_part

    fetched = work.only("fetch")
    source = reopened(fetched)
    backends = backends_of(work.arguments)
    number, count = work.arguments["part"], work.arguments["parts"]
    moved = work.earlier is not None and work.earlier["source"] != fetched["digest"]
    again = [b for b in backends if moved or _is_of_other_versions(work.output, source.name, b)]
    done = [
        quantize_part(
            source,
            chosen,
            work.output,
            number,
            count,
            components=tuple(work.arguments["components"]),
            device=device_of(work.arguments["device"]),
            overwrite=overwrite,
            progress=work.progress,
        )
        for chosen, overwrite in ((again, True), ([b for b in backends if b not in again], False))
        if chosen
    ]
    return {
        "names": [f"{source.name}-{backend.label}" for backend in backends],
        "journals": [
            path.relative_to(work.output).as_posix() for each in done for path in each.journals
        ],
        "source": fetched["digest"],
        # What it wrote follows from the arguments and the source, whoever wrote it.
        "digest": digest([fetched["digest"], number, count]),
    }


def _is_of_other_versions(output: Path, name: str, backend: Backend) -> bool:
    """Whether a variant stands there that other libraries made: it may be replaced, by the node
    that makes the variants, if it is the release's own."""
    from fluxconv.converters.manifest import MANIFEST_NAME
    from fluxconv.recipes.kinds.quantize import has_other_versions

    root = output / f"{name}-{backend.label}"
    return (root / MANIFEST_NAME).is_file() and has_other_versions(root)


def _stands(result: Result, output: Path) -> bool:
    """Whether what it wrote is there: in the variants, or with whoever is making them of it."""
    from fluxconv.converters.journal import JOURNAL_NAME
    from fluxconv.converters.manifest import MANIFEST_NAME
    from fluxconv.converters.staging import hidden

    if all((output / path).is_file() for path in result["journals"]) and result["journals"]:
        return True
    places = [output / name for name in result["names"]]
    return all(
        (place / MANIFEST_NAME).is_file() or (hidden(place, "partial") / JOURNAL_NAME).is_file()
        for place in places
    )


KIND = Kind("part", 1, _run, _stands, packages)
