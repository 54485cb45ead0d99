"""Downloading variants: every byte is checked before a folder appears."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fluxconv.cards.blind_tests import BLIND_TEST_NAME
from fluxconv.cards.licences import LICENCE_FILES
from fluxconv.cards.naming import is_hub_id
from fluxconv.cards.writing import GENERATED
from fluxconv.converters.errors import HubError, HubRefused, NotAVariant, UsageError
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.staging import check_free, staged
from fluxconv.converters.variant import is_safe_path, open_variant
from fluxconv.hub.collection import is_slug
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.remote import RemoteRepository, fetch, read_repository
from fluxconv.hub.repositories import RemoteVariant, remote_variants
from fluxconv.hub.session import Session, bounded_client, open_session
from fluxconv.validators.report import IMAGES, REPORT_NAME

_FOLDER = re.compile(r"[\w.+ -]{1,200}")


@dataclass(frozen=True)
class _Download:
    """One variant to fetch; `files` maps names in its folder to paths in the repository."""

    repository: RemoteRepository
    variant: RemoteVariant
    files: dict[str, str]
    place: Path

    @property
    def nbytes(self) -> int:
        return sum(self.repository.files[path].size for path in self.files.values())

    @property
    def is_here(self) -> bool:
        """Whether an earlier run brought this very variant."""
        manifest = self.place / MANIFEST_NAME
        return manifest.is_file() and manifest.read_bytes() == self.variant.stored


def download(
    what: str,
    output: Path,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Fetch every variant of `what` into a folder of its own below `output`; returns the folders.

    `what` is a repository (`owner/name`), a collection's slug, or the address of either. Each
    variant is staged beside its place, every file compared with the hash in its manifest, and
    renamed into place; one that is here already and unharmed is kept. A GGUF repository gives one
    folder for each type in it.

    Raises `UsageError`, `OutputExists`, `NotAVariant` for a variant here that is harmed or a
    repository that holds none, `HubUnreachable`, `HubRefused`, and `HubError` for content that is
    not what its manifest says.
    """
    progress = progress or Silent()
    session = open_session(endpoint, token)
    name = _identifier(what)
    with bounded_client():
        wanted = [
            item for each in _repositories(session, name) for item in _plan(session, each, output)
        ]
        if not wanted:
            raise NotAVariant(f"{name}: holds no variant that fluxconv published")
        _refuse_double(wanted)
        missing = [item for item in wanted if not item.is_here]
        for item in missing:
            check_free(item.place)
        for item in wanted:
            if item not in missing:
                _check_present(item.place, progress)
        progress.start("Downloading", sum(item.nbytes for item in missing))
        for item in missing:
            _fetch(session, item, progress)
        progress.finish()
    return tuple(item.place for item in wanted)


def _identifier(what: str) -> str:
    """`owner/name` or a slug, out of an address if need be; raises `UsageError`."""
    path = urlsplit(what).path if "://" in what else what
    name = path.strip("/").removeprefix("collections/")
    if is_slug(name) or is_hub_id(name):
        return name
    raise UsageError(
        f"'{what}' is neither a repository (OWNER/NAME) nor a collection (OWNER/TITLE-ID)"
    )


def _repositories(session: Session, name: str) -> Iterator[RemoteRepository]:
    names = [name]
    if is_slug(name):
        with hub_errors(name):
            items = session.api.get_collection(name).items
            names = [item.item_id for item in items if item.item_type == "model"]
    for each in names:
        found = read_repository(session, each)
        if found is None:
            raise HubRefused(f"{each}: not found, or private and not visible with this token")
        yield found


def _plan(session: Session, repository: RemoteRepository, output: Path) -> Iterator[_Download]:
    for variant in remote_variants(session, repository):
        name = variant.manifest.name
        if not _FOLDER.fullmatch(name) or name.startswith("."):
            raise HubError(f"{repository.name}: its manifest names a variant '{name}'")
        files = {path: path for path in variant.manifest.files}
        files |= {path: path for path in (*GENERATED, *LICENCE_FILES) if path in repository.files}
        inner = variant.folder
        for path in repository.files:
            own = path.removeprefix(inner)
            if path.startswith(inner) and (
                own in (MANIFEST_NAME, REPORT_NAME, BLIND_TEST_NAME) or own.startswith(f"{IMAGES}/")
            ):
                files[own] = path
        for own, path in files.items():
            if not is_safe_path(own):
                raise HubError(f"{repository.name}: names the file '{own}' outside the variant")
            if path not in repository.files:
                raise HubError(f"{repository.name}: lacks '{path}', which its manifest names")
        yield _Download(repository, variant, files, output / name)


def _refuse_double(wanted: list[_Download]) -> None:
    places: dict[Path, str] = {}
    for item in wanted:
        other = places.setdefault(item.place, item.repository.name)
        if other != item.repository.name:
            raise UsageError(
                f"{other} and {item.repository.name} both hold {item.place.name}; download them "
                "one by one, into different folders"
            )


def _fetch(session: Session, item: _Download, progress: Progress) -> None:
    records = item.variant.manifest.files
    with staged(item.place) as folder:
        for name, path in item.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as stream:

                def write(piece: bytes, name: str = name) -> None:
                    stream.write(piece)
                    progress.advance(len(piece), f"{item.place.name}/{name}")

                sha256 = fetch(session, item.repository, path, write)
            if name in records and records[name].sha256 != sha256:
                raise HubError(
                    f"{item.repository.name}/{path}: differs from its hash in {MANIFEST_NAME}; "
                    "it was changed after it was published"
                )
        stored = (folder / MANIFEST_NAME).read_bytes()
        if stored != item.variant.stored:
            raise HubError(f"{item.repository.name}: changed while it was being downloaded")


def _check_present(place: Path, progress: Progress) -> None:
    try:
        open_variant(place).check_hashes(progress)
    except NotAVariant as error:
        raise NotAVariant(f"{error}; remove {place} and download it again") from None
