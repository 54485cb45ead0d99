"""One repository: compare what it has with what it should have, and make it so in one commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from fluxconv.cards.blind_tests import BLIND_TEST_NAME
from fluxconv.cards.naming import folder_in_repository
from fluxconv.converters.errors import BadInput, HubError, HubRefused, SourceChanged
from fluxconv.converters.manifest import MANIFEST_NAME, Manifest
from fluxconv.converters.progress import Progress
from fluxconv.hub.errors import hub_errors, redacted
from fluxconv.hub.publication import Publication, PublishedFile
from fluxconv.hub.remote import RemoteRepository, read_commit, read_text
from fluxconv.hub.session import Session
from fluxconv.validators.report import IMAGES, REPORT_NAME

#: What the Hub puts into a new repository, or what somebody may have begun it with.
_HARMLESS = {".gitattributes", "README.md"}
#: Bytes below which files are uploaded together.
_SMALL = 16 << 20


@dataclass(frozen=True)
class RemoteVariant:
    """A variant that a repository holds: its folder in it, and its manifest as stored."""

    folder: str
    manifest: Manifest
    stored: bytes


@dataclass(frozen=True)
class Change:
    """What one commit would do to a repository."""

    publication: Publication
    remote: RemoteRepository | None
    upload: tuple[PublishedFile, ...]
    skip: tuple[str, ...]
    delete: tuple[str, ...]

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


def refuse_foreign(remote: RemoteRepository, variants: tuple[RemoteVariant, ...]) -> None:
    """Raise `HubRefused` if the repository has content that fluxconv did not publish."""
    foreign = sorted(set(remote.files) - _HARMLESS)
    if foreign and not variants:
        raise HubRefused(
            f"{remote.name}: has files that fluxconv did not publish, such as '{foreign[0]}'; "
            "publish under another name, or remove that repository"
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
        known = remote.files.get(path)
        if known is not None and known.holds(file):
            skip.append(path)
        else:
            upload.append(file)
    needed = set(publication.files) | {name for v in staying for name in v.manifest.files}
    left = _left_behind(remote, [v for v in present if v.folder in replaced], needed)
    return Change(publication, remote, tuple(upload), tuple(skip), left)


def apply_change(
    session: Session, change: Change, message: str, *, private: bool, progress: Progress
) -> str:
    """Create the repository if need be, upload, commit once, verify; returns the commit.

    Raises `HubUnreachable`, `HubRefused`, `HubError`, or `SourceChanged` for a file that changed
    since it was hashed. Before the commit nothing is visible.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    name = change.publication.repository
    if change.remote is None:
        with hub_errors(name):
            session.api.create_repo(name, repo_type="model", private=private, exist_ok=True)
            parent = session.api.model_info(name).sha
    else:
        parent = change.remote.commit
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    progress.start(f"Uploading {name}", change.upload_bytes)
    for batch in _batches(change.upload):
        additions = [CommitOperationAdd(file.path, file.source) for file in batch]
        with hub_errors(name), _upload_errors(name):
            session.api.preupload_lfs_files(name, additions, free_memory=False)
        for file, addition in zip(batch, additions, strict=True):
            if addition.upload_info.sha256.hex() != file.record.sha256:
                raise SourceChanged(f"{file.path}: changed while it was being published")
            progress.advance(file.record.size, file.path)
        operations += additions
    operations += [CommitOperationDelete(path) for path in change.delete]
    progress.finish()
    with hub_errors(name):
        commit = session.api.create_commit(
            name, operations, commit_message=message, parent_commit=parent
        ).oid
    verify(read_commit(session, name, commit), change.publication)
    return str(commit)


def verify(remote: RemoteRepository, publication: Publication) -> None:
    """Raise `HubError` naming the first file that the repository lacks or has otherwise."""
    for path, file in publication.files.items():
        known = remote.files.get(path)
        if known is None:
            raise HubError(f"{remote.name}: lacks '{path}' after the commit; push it again")
        if not known.holds(file):
            raise HubError(f"{remote.name}: stored '{path}' wrongly; push it again")


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
            variant.folder + name for name in (REPORT_NAME, BLIND_TEST_NAME)
        }
        pictures = f"{variant.folder}{IMAGES}/"
        old |= {path for path in remote.files if path.startswith(pictures)}
    return tuple(sorted((old & set(remote.files)) - needed))


def _batches(files: tuple[PublishedFile, ...]) -> Iterator[list[PublishedFile]]:
    """The small files together, for one request, and each large one alone, for its progress."""
    small = [file for file in files if file.record.size < _SMALL]
    if small:
        yield small
    for file in files:
        if file.record.size >= _SMALL:
            yield [file]


@contextmanager
def _upload_errors(what: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # hf_xet, the client's transport for large files, has no error of its own for a failed upload.
    try:
        yield
    except (RuntimeError, OSError) as error:
        if isinstance(error, HfHubHTTPError | OfflineModeIsEnabled):
            raise
        raise HubError(
            f"{what}: the upload failed ({redacted(str(error))[:200]}); run the same command again"
        ) from None
