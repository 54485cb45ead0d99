"""One repository: what it holds of ours, and what a push would change in it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from fluxconv.cards.blind_tests import BLIND_TEST_NAME
from fluxconv.cards.naming import folder_in_repository
from fluxconv.converters.errors import BadInput, HubError, HubRefused
from fluxconv.converters.manifest import MANIFEST_NAME, Manifest
from fluxconv.hub.errors import Moved
from fluxconv.hub.publication import Publication, PublishedFile
from fluxconv.hub.remote import RemoteRepository, read_text
from fluxconv.hub.session import Session
from fluxconv.hub.signing import SIGNATURE
from fluxconv.validators.report import IMAGES, REPORT_NAME

#: What the Hub puts into a new repository, or what somebody may have begun it with.
_HARMLESS = {".gitattributes", "README.md"}
#: Limits of the Hub: bytes of a file, files of a repository.
LARGEST_FILE, MOST_FILES = 50_000_000_000, 100_000


@dataclass(frozen=True)
class RemoteVariant:
    """A variant that a repository holds: its folder in it, and its manifest as stored."""

    folder: str
    manifest: Manifest
    stored: bytes


@dataclass(frozen=True)
class Change:
    """What one commit would do to a repository; of the files in `known` it has the content
    already, under other names."""

    publication: Publication
    remote: RemoteRepository | None
    upload: tuple[PublishedFile, ...]
    skip: tuple[str, ...]
    delete: tuple[str, ...]
    known: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        return not self.upload and not self.delete

    @property
    def upload_bytes(self) -> int:
        return sum(file.record.size for file in self.upload)


def remote_variants(session: Session, remote: RemoteRepository) -> tuple[RemoteVariant, ...]:
    """The variants in a repository, by their manifests; raises `HubError` for a broken one."""
    found = []
    for path in sorted(remote.files):
        folder, _, name = path.rpartition("/")
        parts = folder.split("/")
        if name != MANIFEST_NAME or not (
            folder == "" or (len(parts) == 2 and parts[0] == "fluxconv")
        ):
            continue
        stored = read_text(session, remote, path)
        try:
            manifest = Manifest.model_validate_json(stored)
        except ValidationError:
            raise HubError(f"{remote.name}/{path}: is no manifest of this fluxconv") from None
        found.append(RemoteVariant(f"{folder}/" if folder else "", manifest, stored))
    return tuple(found)


def is_empty(remote: RemoteRepository) -> bool:
    """Whether nobody has put anything of weight into it."""
    return set(remote.files) <= _HARMLESS


def refuse_foreign(remote: RemoteRepository, variants: tuple[RemoteVariant, ...]) -> None:
    """Raise `HubRefused` if the repository has content that fluxconv did not publish."""
    foreign = sorted(set(remote.files) - _HARMLESS)
    if foreign and not variants:
        raise HubRefused(
            f"{remote.name}: has files that fluxconv did not publish, such as '{foreign[0]}'; "
            "give --replace to publish there all the same (no other file is touched), or rename "
            "that repository on the Hub"
        )


def refuse_oversized(publication: Publication) -> None:
    """Raise `HubRefused` for what the Hub would not take, before anything is sent."""
    if len(publication.files) > MOST_FILES:
        raise HubRefused(f"{publication.repository}: more than {MOST_FILES} files")
    for path, file in publication.files.items():
        if file.record.size > LARGEST_FILE:
            raise HubRefused(
                f"{publication.repository}: '{path}' has {file.record.size / 1e9:.1f} GB, and the "
                f"Hub takes {LARGEST_FILE / 1e9:.0f}; quantize it with another backend"
            )


def plan_change(
    publication: Publication,
    remote: RemoteRepository | None,
    present: tuple[RemoteVariant, ...],
) -> Change:
    """What must be uploaded and deleted; deleted is only what an older push of ours left behind.

    Raises `BadInput` if a variant that stays in the repository needs another content of a file
    that this publication would replace.
    """
    if remote is None:
        return Change(publication, None, tuple(publication.files.values()), (), ())
    replaced = {folder_in_repository(variant) for variant in publication.variants}
    staying = [variant for variant in present if variant.folder not in replaced]
    _refuse_conflicts(publication, staying)
    upload, skip = [], []
    for path, file in publication.files.items():
        there = remote.files.get(path)
        if there is not None and there.holds(file):
            skip.append(path)
        else:
            upload.append(file)
    needed = set(publication.files) | {name for v in staying for name in v.manifest.files}
    left = _left_behind(remote, [v for v in present if v.folder in replaced], needed)
    contents = {file.sha256 for file in remote.files.values()}
    known = frozenset(file.path for file in upload if file.record.sha256 in contents)
    return Change(publication, remote, tuple(upload), tuple(skip), left, known)


def refuse_overwriting(change: Change, fresh: RemoteRepository) -> None:
    """Raise `Moved` if somebody changed, since the change was planned, what it would change.

    What they did to other files stays: the change is then planned again, on top of theirs.
    """
    before = change.remote.files if change.remote else {}
    for path in (*(file.path for file in change.upload), *change.delete):
        ours, now = change.publication.files.get(path), fresh.files.get(path)
        if now != before.get(path) and not (ours and now and now.holds(ours)):
            raise Moved(
                f"{fresh.name}: somebody else changed '{path}' meanwhile; look at it, then run the "
                "same command again"
            )


def holds(remote: RemoteRepository, publication: Publication) -> bool:
    """Whether the repository has every file of the publication."""
    return not _missing(remote, publication)


def verify(remote: RemoteRepository, publication: Publication) -> None:
    """Raise `HubError` naming the first file that the repository lacks or has otherwise."""
    for path in _missing(remote, publication):
        what = f"stored '{path}' wrongly" if path in remote.files else f"lacks '{path}'"
        raise HubError(
            f"{remote.name}: the Hub {what} after the commit; run the same command again"
        )


def _missing(remote: RemoteRepository, publication: Publication) -> list[str]:
    return [
        path
        for path, file in publication.files.items()
        if not ((known := remote.files.get(path)) and known.holds(file))
    ]


def _refuse_conflicts(publication: Publication, staying: list[RemoteVariant]) -> None:
    for variant in staying:
        for path, record in variant.manifest.files.items():
            ours = publication.files.get(path)
            if ours is not None and ours.record != record:
                raise BadInput(
                    f"{publication.repository}: '{path}' belongs to {variant.manifest.name} too, "
                    "which has another one; quantize and push them together"
                )


def _left_behind(
    remote: RemoteRepository, replaced: list[RemoteVariant], needed: set[str]
) -> tuple[str, ...]:
    old: set[str] = set()
    for variant in replaced:
        old |= set(variant.manifest.files) | {
            variant.folder + name for name in (REPORT_NAME, BLIND_TEST_NAME, SIGNATURE)
        }
        pictures = f"{variant.folder}{IMAGES}/"
        old |= {path for path in remote.files if path.startswith(pictures)}
    return tuple(sorted((old & set(remote.files)) - needed))
