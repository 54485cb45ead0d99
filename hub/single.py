"""One GGUF file of a repository, for programs that want nothing else of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fluxconv.converters.errors import NotAVariant, OutputExists, nearest
from fluxconv.converters.progress import Progress
from fluxconv.converters.staging import hidden, locked, sync
from fluxconv.converters.variant import hash_file
from fluxconv.hub.fetching import fetch_file
from fluxconv.hub.remote import RemoteRepository
from fluxconv.hub.repositories import RemoteVariant
from fluxconv.hub.session import Session
from fluxconv.hub.targets import Target
from fluxconv.hub.wanted import require_place


def download_file(
    session: Session,
    published: Sequence[tuple[RemoteRepository, RemoteVariant]],
    target: Target,
    output: Path,
    progress: Progress,
) -> Path:
    """Bring the target's file to the folder `output`, checked against the hash in its manifest.

    A complete one that is there is kept, and what an interrupted run brought is used. Raises
    `NotAVariant` if no manifest names it, `OutputExists` if something else lies in its place, and
    what `fetch_file` raises.
    """
    assert target.file is not None
    named = {
        name: (repository, record)
        for repository, variant in published
        for name, record in variant.manifest.files.items()
        if name in repository.files
    }
    if target.file not in named:
        known = [name for name in named if name.endswith(".gguf")]
        raise NotAVariant(
            f"{target.name}: no manifest in it names '{target.file}'{nearest(target.file, known)}"
        )
    repository, record = named[target.file]
    require_place(repository, target.file)
    place = output / PurePosixPath(target.file).name
    if place.exists() or place.is_symlink():
        if place.is_file() and not place.is_symlink() and hash_file(place) == record:
            return place
        raise OutputExists(f"{place}: exists and is another file; remove it, or choose a folder")
    progress.start("Downloading", record.size)
    busy = f"{place}: another run is writing it"
    with locked(hidden(place, "partial"), busy, resumable=True) as folder:
        fetch_file(
            session,
            repository,
            target.file,
            folder / place.name,
            sha256=record.sha256,
            advance=lambda nbytes: progress.advance(nbytes, place.name),
        )
        sync(folder / place.name)
        (folder / place.name).rename(place)
    sync(place.parent)
    progress.finish()
    return place
