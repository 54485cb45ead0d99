"""Which files make up a published variant, and where they go: never outside its folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fluxconv.cards.blind_tests import BLIND_TEST_NAME
from fluxconv.cards.licences import LICENCE_FILES
from fluxconv.cards.writing import GENERATED
from fluxconv.converters.errors import WrongContent
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.variant import is_safe_path
from fluxconv.hub.remote import RemoteRepository
from fluxconv.hub.repositories import RemoteVariant
from fluxconv.hub.signing import SIGNATURE
from fluxconv.validators.report import IMAGES, REPORT_NAME

_FOLDER = re.compile(r"[\w.+ -]{1,200}")
#: Beside the manifest's own files; in a shared repository they stand in the variant's inner folder.
_INNER = (MANIFEST_NAME, REPORT_NAME, BLIND_TEST_NAME, SIGNATURE)
#: A pipeline has some thirty files, and a report some hundred pictures.
_MOST_FILES, _LONGEST = 10_000, 255


@dataclass(frozen=True)
class Wanted:
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
        """Whether an earlier run brought this very variant, whatever became of it since."""
        manifest = self.place / MANIFEST_NAME
        return manifest.is_file() and manifest.read_bytes() == self.variant.stored


def plan_variant(repository: RemoteRepository, variant: RemoteVariant, output: Path) -> Wanted:
    """All files of a published variant; raises `WrongContent` for a manifest that names files which
    are not there, or places that are not its own."""
    name = variant.manifest.name
    if not _FOLDER.fullmatch(name) or name.startswith("."):
        raise WrongContent(f"{repository.name}: its manifest names a variant '{name[:200]}'")
    files = {path: path for path in variant.manifest.files}
    files |= {path: path for path in (*GENERATED, *LICENCE_FILES) if path in repository.files}
    inner = variant.folder
    for path in repository.files:
        own = path.removeprefix(inner)
        if path.startswith(inner) and (own in _INNER or own.startswith(f"{IMAGES}/")):
            files[own] = path
    if len(files) > _MOST_FILES:
        raise WrongContent(
            f"{repository.name}: names {len(files)} files, far more than a variant has"
        )
    for own, path in files.items():
        require_place(repository, own)
        if path not in repository.files:
            raise WrongContent(f"{repository.name}: lacks '{path[:200]}', which its manifest names")
    return Wanted(repository, variant, files, output / name)


def require_place(repository: RemoteRepository, name: str) -> None:
    """Raise `WrongContent` unless `name` is a plain path that stays in its folder, and hides
    nothing there: a `.git` would be obeyed by git."""
    parts = name.split("/")
    if not is_safe_path(name) or any(len(part.encode()) > _LONGEST for part in parts):
        raise WrongContent(f"{repository.name}: names the file '{name[:200]}' outside the variant")
    if any(part.startswith(".") or not part.isprintable() for part in parts):
        raise WrongContent(
            f"{repository.name}: names the hidden file '{name[:200]!a}', which no variant has"
        )
