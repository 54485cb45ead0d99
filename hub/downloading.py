"""Downloading variants: every byte is checked before a folder appears, none is fetched twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from fluxconv.converters.errors import (
    DiskFull,
    HubRefused,
    NotAVariant,
    UsageError,
    WrongContent,
    nearest,
)
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.staging import check_free, hidden, locked, staged
from fluxconv.converters.variant import hash_file, open_variant
from fluxconv.hub.choosing import Fit, choose
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.fetching import fetch_file
from fluxconv.hub.remote import RemoteRepository, read_repository
from fluxconv.hub.repositories import RemoteVariant, remote_variants
from fluxconv.hub.retrying import DEFAULT_TIMEOUT
from fluxconv.hub.session import Session, bounded_client, open_session
from fluxconv.hub.signing import check_signature
from fluxconv.hub.single import download_file
from fluxconv.hub.targets import Target, target_on
from fluxconv.hub.wanted import Wanted, plan_variant

#: Bytes that stay free on the disk.
_SPARE = 64 << 20


def download(
    what: str,
    output: Path,
    *,
    only: Sequence[str] = (),
    fit: Fit | None = None,
    public_key: Path | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Fetch every variant of `what` into a folder of its own below `output`; returns the places.

    `what` is a repository (`owner/name`), a file of a GGUF repository, a collection's slug, or the
    address of any; a GGUF repository gives one folder for each type in it. `only` names backends or
    GGUF types, `fit` takes the one that fits best. Each variant is staged beside its place, every
    file compared with the hash in its manifest, and renamed into place. What an interrupted run
    brought is used; of a variant that is here already only the files are fetched that are missing
    or harmed. With `public_key`, each must have a signature made with that key.

    Raises `UsageError`, `OutputExists`, `NotAVariant` for a repository that holds none,
    `NotEnoughMemory` if none fits, `DiskFull`, `BadSignature`, `HubUnreachable`, `HubRefused`,
    `HubError`, and `WrongContent` for content that is not what its manifest says.
    """
    progress = progress or Silent()
    session = open_session(endpoint, token, timeout)
    target = target_on(session.endpoint, what)
    with bounded_client(timeout, home=session.endpoint):
        published = list(_published(session, target))
        if target.file is not None:
            if only or fit or public_key:
                raise UsageError(f"{what}: is one file; give the repository to choose or to verify")
            return (download_file(session, published, target, output, progress),)
        if not published:
            raise NotAVariant(f"{target.name}: holds no variant that fluxconv published")
        published = _chosen(session, published, only, fit, progress)
        wanted = [plan_variant(*each, output) for each in published]
        _refuse_double(wanted)
        here = [item for item in wanted if item.is_here]
        missing = [item for item in wanted if not item.is_here]
        for item in missing:
            check_free(item.place)
        _require_room(output, missing)
        for item in here:
            _repair(session, item, public_key, progress)
        progress.start("Downloading", sum(item.nbytes for item in missing))
        for item in missing:
            with staged(item.place, resumable=True) as folder:
                _remove_strays(folder, item)
                _fetch(session, item, item.files, folder, progress)
                _check(item, folder, public_key)
        progress.finish()
    return tuple(item.place for item in wanted)


def _published(
    session: Session, target: Target
) -> Iterator[tuple[RemoteRepository, RemoteVariant]]:
    names = [target.name]
    if target.is_collection:
        with hub_errors(target.name):
            items = session.api.get_collection(target.name).items
            names = [item.item_id for item in items if item.item_type == "model"]
    for name in names:
        found = read_repository(session, name)
        if found is None:
            raise HubRefused(f"{name}: not found, or private and not visible with this token")
        for variant in remote_variants(session, found):
            yield found, variant


def _chosen(
    session: Session,
    published: list[tuple[RemoteRepository, RemoteVariant]],
    only: Sequence[str],
    fit: Fit | None,
    progress: Progress,
) -> list[tuple[RemoteRepository, RemoteVariant]]:
    """Those asked for by name, and of these the best, if that was asked for."""
    names = [_names(variant) for _, variant in published]
    for wanted in only:
        if not any(wanted.casefold() in each for each in names):
            known = {name for each in names for name in each}
            raise UsageError(f"--only {wanted}: is not among them{nearest(wanted, known)}")
    if only:
        asked = {wanted.casefold() for wanted in only}
        published = [each for each, own in zip(published, names, strict=True) if own & asked]
    if fit is None:
        return published
    index, found = choose(session, published, fit)
    progress.note(found.advice)
    return [published[index]]


def _names(variant: RemoteVariant) -> set[str]:
    """What people may call it: its name, its backend, its GGUF type."""
    manifest = variant.manifest
    type_of = variant.folder.strip("/").rpartition("/")[2]
    return {name.casefold() for name in (manifest.name, manifest.backend, type_of) if name}


def _refuse_double(wanted: Sequence[Wanted]) -> None:
    places: dict[Path, str] = {}
    for item in wanted:
        other = places.setdefault(item.place, item.repository.name)
        if other != item.repository.name:
            raise UsageError(
                f"{other} and {item.repository.name} both hold {item.place.name}; download them "
                "one by one, into different folders"
            )


def _require_room(output: Path, missing: Sequence[Wanted]) -> None:
    """Before a byte is fetched: 24 GB over a home line take hours."""
    needed = sum(item.nbytes - _brought(item) for item in missing)
    existing = next(
        path for path in (output.absolute(), *output.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(existing).free - _SPARE
    if needed > free:
        raise DiskFull(
            f"{output}: the download takes {needed / 1e9:.2f} GB, and {max(free, 0) / 1e9:.2f} GB "
            "are free; make room, or choose another folder"
        )


def _brought(item: Wanted) -> int:
    """Bytes that an interrupted run left."""
    folder = hidden(item.place, "partial")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove_strays(folder: Path, item: Wanted) -> None:
    """What an interrupted run brought of another state of the repository."""
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or (path.is_file() and name not in item.files):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _fetch(
    session: Session, item: Wanted, files: dict[str, str], folder: Path, progress: Progress
) -> None:
    records = item.variant.manifest.files
    for name, path in files.items():
        place = folder / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise WrongContent(
                f"{item.repository.name}: names '{name}' below another file"
            ) from None
        label = f"{item.place.name}/{name}"
        fetch_file(
            session,
            item.repository,
            path,
            place,
            sha256=records[name].sha256 if name in records else None,
            advance=lambda nbytes, label=label: progress.advance(nbytes, label),  # type: ignore[misc]
        )


def _check(item: Wanted, folder: Path, public_key: Path | None) -> None:
    if (folder / MANIFEST_NAME).read_bytes() != item.variant.stored:
        raise WrongContent(f"{item.repository.name}: changed while it was being downloaded")
    if public_key is not None:
        check_signature(open_variant(folder), public_key)


def _repair(session: Session, item: Wanted, public_key: Path | None, progress: Progress) -> None:
    """Fetch what is missing or harmed of a variant that is here, and nothing else.

    What somebody added or changed beside the manifest's files (a card, a new report) stays.
    """
    records = item.variant.manifest.files
    progress.start("Hashing", sum(record.size for record in records.values()))
    harmed = {}
    for name, path in item.files.items():
        place = item.place / name
        if place.is_symlink() or not place.is_file():
            harmed[name] = path
        elif name in records:
            if hash_file(place) != records[name]:
                harmed[name] = path
            progress.advance(records[name].size, name)
    progress.finish()
    if harmed:
        busy = f"{item.place}: another run is writing it"
        progress.start(
            "Repairing", sum(item.repository.files[path].size for path in harmed.values())
        )
        with locked(hidden(item.place, "partial"), busy, resumable=True) as folder:
            _fetch(session, item, harmed, folder, progress)
            for name in harmed:
                place = item.place / name
                if not place.parent.resolve().is_relative_to(item.place.resolve()):
                    raise NotAVariant(f"{place}: lies behind a symbolic link; remove it")
                place.parent.mkdir(parents=True, exist_ok=True)
                (folder / name).replace(place)
        progress.finish()
        progress.note(f"{item.place}: {len(harmed)} missing or harmed files were fetched again")
    if public_key is not None:
        check_signature(open_variant(item.place), public_key)
