"""The rows of `checkpoints`: opened by their headers, at the commit that a revision means now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fluxconv.cards.licences import licence_in
from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import HubUnreachable
from fluxconv.converters.load import require_pipeline
from fluxconv.converters.progress import Progress
from fluxconv.converters.visible import visible, visible_path
from fluxconv.hub.session import open_session
from fluxconv.hub.source_outline import Outlines
from fluxconv.hub.sources import open_source
from fluxconv.recipes.checks.findings import Findings
from fluxconv.recipes.contradictions import MAY_BE_ON_HUB, checkpoint_name, same_name
from fluxconv.recipes.problems import Place
from fluxconv.recipes.recipe import CheckpointRow
from fluxconv.recipes.recipe_file import RecipeFile

#: Seconds to wait for a Hub that may not be there at all.
HUB_TIMEOUT = 15.0


@dataclass(frozen=True)
class Source:
    """A row and what was found of it. `checkpoint` is None if it could not be looked at, `licence`
    is its title, `missing` are the bytes that a download would bring."""

    number: int
    row: CheckpointRow
    id: str
    base: str | None
    name: str
    checkpoint: Checkpoint | None = None
    licence: str | None = None
    missing: int = 0

    @property
    def place(self) -> Place:
        """Where it stands in the recipe."""
        return ("checkpoints", self.number)

    @property
    def on_hub(self) -> bool:
        """Whether any of it is on the Hub, and not on this machine."""
        return not all(Path(text).is_absolute() for text in (self.id, self.base) if text)


def check_sources(
    file: RecipeFile, folder: Path, found: Findings, progress: Progress
) -> list[Source]:
    """Open every checkpoint; headers from the Hub are put into `folder`."""
    outlines = Outlines(open_session(None, None, HUB_TIMEOUT), folder)
    reached = True
    sources: list[Source] = []
    for number, row in enumerate(file.recipe.checkpoints):
        base = None if row.base is None else _what(file, row.base)
        source = Source(number, row, _what(file, row.id), base, checkpoint_name(row.id) or row.id)
        _refuse_lookalikes(source, file, found)
        if reached or not source.on_hub:
            try:
                source = _opened(source, outlines, found, progress)
            except HubUnreachable as error:
                reached = False
                found.remark(f"not looked at: {error}")
        else:
            found.remark(f"not looked at: {visible(row.id)}, as the Hub cannot be reached")
        for other in sources:
            if other.name.casefold() == source.name.casefold():
                found.problem(source.place, same_name(row.id, other.row.id, source.name))
        sources.append(source)
    return sources


def _opened(source: Source, outlines: Outlines, found: Findings, progress: Progress) -> Source:
    row, place = source.row, source.place
    before = outlines.missing
    with found.collecting(place if row.revision is None else (*place, "revision")):
        checkpoint = open_source(
            source.id,
            revision=row.revision,
            source_id=row.source_id,
            base=source.base,
            allow_requantize=row.allow_requantize,
            progress=progress,
            download=outlines,
        )
        with found.collecting(place):
            require_pipeline(checkpoint)  # what cannot draw cannot pass
        licence = None
        with found.collecting(place):
            licence = licence_in(checkpoint.root, checkpoint.source, checkpoint.front_matter)
        return replace(
            source,
            name=checkpoint.name,
            checkpoint=checkpoint,
            licence=licence.title if licence else None,
            missing=outlines.missing - before,
        )
    return source


def _what(file: RecipeFile, text: str) -> str:
    """What `open_source` is to be given: a path beside the recipe, made absolute, or a name."""
    path = file.path(text)
    return str(path) if path.exists() or not MAY_BE_ON_HUB.fullmatch(text) else text


def _refuse_lookalikes(source: Source, file: RecipeFile, found: Findings) -> None:
    """What is opened must not depend on the folder that a command is given in."""
    for key, text in (("id", source.id), ("base", source.base)):
        if text is not None and not Path(text).is_absolute() and Path(text).exists():
            found.problem(
                (*source.place, key),
                f"{visible(text)} is not beside the recipe, but in the current folder; paths are "
                f"relative to the recipe's own, {visible_path(file.folder)}",
            )
