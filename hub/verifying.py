"""Checking a variant at any time, here or on the Hub: hashes, structure, report, signature."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fluxconv.converters.errors import BadInput, HubRefused, NotAVariant, WrongContent
from fluxconv.converters.manifest import MANIFEST_NAME, FileRecord
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import Variant, hash_file, open_variant
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.fetching import fetch_file
from fluxconv.hub.outline import outline
from fluxconv.hub.remote import RemoteRepository, read_repository, read_text
from fluxconv.hub.repositories import remote_variants
from fluxconv.hub.retrying import DEFAULT_TIMEOUT
from fluxconv.hub.session import Session, bounded_client, open_session
from fluxconv.hub.signing import SIGNATURE, BadSignature, check_signature
from fluxconv.hub.targets import target_on
from fluxconv.hub.wanted import Wanted, plan_variant
from fluxconv.validators.report import picture_problems, read_report
from fluxconv.validators.structure import check_structure

Signed = Literal["valid", "broken", "missing", "not checked", "no"]
Validated = Literal["passed", "failed", "out of date", "no"]


@dataclass(frozen=True)
class Verification:
    """What was found of one variant; `problems` are sentences, none if all is well.

    `hashed` says whose word the hashes of large files are: "contents" were read, "hub" is what the
    Hub says of its own storage. `signature` is "not checked" where no key was given.
    """

    name: str
    where: str
    files: int
    tensors: int
    hashed: Literal["contents", "hub"]
    signature: Signed
    report: Validated
    problems: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        return not self.problems


def verify_folder(
    folder: Path, *, public_key: Path | None = None, progress: Progress | None = None
) -> Verification:
    """Check the variant in `folder`: every file is read.

    Raises `NotAVariant` if it is none, `BadInput` for a key that cannot be used.
    """
    variant = open_variant(folder)
    structure = check_structure(variant.root, progress or Silent())
    signature, unsigned = _signature(variant, public_key)
    report, unproven = _report(variant, lambda name: _hash_here(variant.root / name))
    return Verification(
        variant.name,
        str(folder),
        structure.files,
        structure.tensors,
        "contents",
        signature,
        report,
        (*structure.problems, *unsigned, *unproven),
    )


def verify_published(
    what: str,
    *,
    public_key: Path | None = None,
    contents: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Progress | None = None,
) -> tuple[Verification, ...]:
    """Check every variant of a repository or collection, without keeping it.

    Small files and the headers of large ones are fetched; of a large file the sha256 that the Hub
    has for it is compared, or with `contents` its every byte is fetched and hashed. Raises
    `UsageError`, `NotAVariant` for a repository that holds none, `HubUnreachable`, `HubRefused`,
    `HubError`, `BadInput` for a key that cannot be used.
    """
    session = open_session(endpoint, token, timeout)
    target = target_on(session.endpoint, what)
    progress = progress or Silent()
    found: list[Verification] = []
    with (
        bounded_client(timeout, home=session.endpoint),
        tempfile.TemporaryDirectory(prefix="fluxconv-") as folder,
    ):
        for repository in _repositories(session, target.name, target.is_collection):
            for variant in remote_variants(session, repository):
                place = Path(folder) / str(len(found))
                wanted = plan_variant(repository, variant, place)
                found.append(_verify_remote(session, wanted, place, public_key, contents, progress))
    if not found:
        raise NotAVariant(f"{target.name}: holds no variant that fluxconv published")
    return tuple(found)


def _repositories(session: Session, name: str, is_collection: bool) -> Iterator[RemoteRepository]:
    names = [name]
    if is_collection:
        with hub_errors(name):
            items = session.api.get_collection(name).items
            names = [item.item_id for item in items if item.item_type == "model"]
    for each in names:
        found = read_repository(session, each)
        if found is None:
            raise HubRefused(f"{each}: not found, or private and not visible with this token")
        yield found


def _verify_remote(
    session: Session,
    wanted: Wanted,
    place: Path,
    public_key: Path | None,
    contents: bool,
    progress: Progress,
) -> Verification:
    repository, manifest = wanted.repository, wanted.variant.manifest
    problems = [
        problem
        for name, record in manifest.files.items()
        if (problem := _differs(repository, name, record)) is not None
    ]
    if contents and not problems:
        problems += _read_all(session, wanted, place.with_suffix(".file"), progress)
    name, where = manifest.name, f"{session.endpoint}/{repository.name}"
    hashed: Literal["contents", "hub"] = "contents" if contents else "hub"
    count = len(manifest.files)
    if problems:
        return Verification(name, where, count, 0, hashed, "not checked", "no", tuple(problems))
    try:
        variant = outline(session, repository, wanted.variant, place, weights=True)
    except WrongContent as error:
        return Verification(name, where, count, 0, hashed, "not checked", "no", (str(error),))
    signature = wanted.variant.folder + SIGNATURE
    if signature in repository.files:
        (place / SIGNATURE).write_bytes(read_text(session, repository, signature))
    structure = check_structure(place, Silent(), contents=False)
    signed, unsigned = _signature(variant, public_key)

    def hash_there(name: str) -> str | None:
        there = repository.files.get(wanted.variant.folder + name)
        # Of a small file the Hub has no sha256: it is fetched.
        if there is not None and there.sha256 is None:
            return hashlib.sha256(read_text(session, repository, there.path)).hexdigest()
        return there.sha256 if there else None

    report, unproven = _report(variant, hash_there)
    shown = [problem.replace(f"{place}/", "") for problem in structure.problems]
    return Verification(
        name,
        where,
        structure.files,
        structure.tensors,
        hashed,
        signed,
        report,
        (*shown, *unsigned, *unproven),
    )


def _differs(repository: RemoteRepository, name: str, record: FileRecord) -> str | None:
    """What the Hub itself says of a file, held against the manifest."""
    there = repository.files[name]
    if there.size != record.size:
        return f"{name} has {there.size} bytes where {MANIFEST_NAME} has {record.size}"
    if there.sha256 not in (None, record.sha256):
        return f"{name} differs from its hash in {MANIFEST_NAME}"
    return None


def _read_all(session: Session, wanted: Wanted, place: Path, progress: Progress) -> Iterator[str]:
    """Fetch every file of the manifest, one after the other, and name those that are wrong."""
    files = wanted.variant.manifest.files
    progress.start(f"Reading {wanted.repository.name}", sum(each.size for each in files.values()))
    for name, record in files.items():
        try:
            fetch_file(
                session,
                wanted.repository,
                name,
                place,
                sha256=record.sha256,
                advance=lambda nbytes, name=name: progress.advance(nbytes, name),  # type: ignore[misc]
            )
            place.unlink()
        except WrongContent as error:
            yield str(error)
    progress.finish()


def _signature(variant: Variant, public_key: Path | None) -> tuple[Signed, tuple[str, ...]]:
    is_there = (variant.root / SIGNATURE).is_file()
    if public_key is None:
        return ("not checked" if is_there else "no"), ()
    try:
        check_signature(variant, public_key)
    except BadSignature as error:
        return ("broken" if is_there else "missing"), (str(error),)
    return "valid", ()


def _report(
    variant: Variant, hash_of: Callable[[str], str | None]
) -> tuple[Validated, tuple[str, ...]]:
    """What the report says; one that cannot be read is a problem, as are pictures that are not its
    own; a missing one is not."""
    try:
        report = read_report(variant)
    except BadInput as error:
        return "no", (str(error),)
    if report is None:
        return "no", ()
    if report.manifest_sha256 != hash_file(variant.root / MANIFEST_NAME).sha256:
        return "out of date", ()
    wrong = picture_problems(report, hash_of)
    return ("passed" if report.verdict.passed else "failed"), wrong


def _hash_here(file: Path) -> str | None:
    return hash_file(file).sha256 if file.is_file() else None
