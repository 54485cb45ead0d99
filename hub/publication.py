"""What goes into a repository, and nothing else: the one list of it."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fluxconv.cards.blind_tests import BLIND_TEST_NAME, read_blind_tests
from fluxconv.cards.licences import licence_of
from fluxconv.cards.naming import folder_in_repository, repository_name
from fluxconv.converters.errors import (
    BadInput,
    CheckFailed,
    NotAVariant,
    SourceChanged,
    UsageError,
)
from fluxconv.converters.manifest import MANIFEST_NAME, FileRecord
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import Variant, hash_file, is_safe_path
from fluxconv.hub.signing import SIGNATURE
from fluxconv.validators.report import (
    IMAGES,
    REPORT_NAME,
    Report,
    picture_problems,
    read_report,
)

_CHUNK = 1 << 22
#: Files that are hashed side by side: a processor hashes slower than a disk reads.
_AT_ONCE = 2


@dataclass(frozen=True)
class PublishedFile:
    """One file of a repository: its path there, and its content, on disk or made up."""

    path: str
    content: Path | bytes
    record: FileRecord
    #: Size, time and number of the file on disk when it was taken in.
    stamp: tuple[int, int, int] | None = None

    def read(self) -> bytes:
        """The content of a small file; raises `SourceChanged` if it is not what was hashed."""
        data = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.record.sha256:
            raise self.changed()
        return data

    def check(self, advance: Callable[[int], object]) -> None:
        """Hash it again; raises `NotAVariant` if it is not what its manifest says."""
        if isinstance(self.content, bytes):
            advance(self.record.size)
        elif hash_file(self.content, advance) != self.record:
            raise NotAVariant(f"{self.content}: differs from its hash in {MANIFEST_NAME}")

    def refuse_changed(self, *, thoroughly: bool = False) -> None:
        """Raise `SourceChanged` if the file on disk is not the one that was taken in, by its size
        and time, or `thoroughly` by its content."""
        if isinstance(self.content, bytes):
            return
        is_same = _stamp(self.content) == self.stamp
        if is_same and thoroughly:
            is_same = hash_file(self.content) == self.record
        if not is_same:
            raise self.changed()

    def changed(self) -> SourceChanged:
        """What to raise where the content is not the one that was hashed."""
        return SourceChanged(
            f"{self.content!s}: changed while it was being published; check it, and run the same "
            "command again"
        )

    @cached_property
    def git_oid(self) -> str:
        """How git names the content where it is not a large file."""
        digest = hashlib.sha1(f"blob {self.record.size}\0".encode(), usedforsecurity=False)
        if isinstance(self.content, bytes):
            digest.update(self.content)
        else:
            with self.content.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class Publication:
    """Everything that a repository will hold of ours."""

    repository: str
    variants: tuple[Variant, ...]
    files: Mapping[str, PublishedFile]

    @property
    def nbytes(self) -> int:
        return sum(file.record.size for file in self.files.values())

    @property
    def digest(self) -> str:
        """What names these contents under these paths: the same on every machine."""
        lines = (f"{path} {file.record.sha256}\n" for path, file in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def check(self, progress: Progress) -> None:
        """Hash every file again; raises `NotAVariant` naming the first that differs."""
        progress.start(f"Hashing {self.repository}", self.nbytes)
        lock, is_over = threading.Lock(), threading.Event()

        def check(file: PublishedFile) -> None:
            def advance(nbytes: int) -> None:
                if is_over.is_set():
                    raise CancelledError
                with lock:
                    progress.advance(nbytes, file.path)

            file.check(advance)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                # Large ones first: none of them is left to be hashed alone at the end.
                order = sorted(self.files.values(), key=lambda file: -file.record.size)
                checks = {file.path: pool.submit(check, file) for file in order}
                for path in self.files:
                    checks[path].result()
            except BaseException:
                # Ctrl-C, or one that differs: whoever hashes ends with the piece at hand.
                is_over.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        progress.finish()


def group_by_repository(
    variants: Sequence[Variant], namespace: str
) -> dict[str, tuple[Variant, ...]]:
    """The variants of each repository, by `namespace/name`, in the order given.

    Raises `UsageError` for two variants that would be the same one on the Hub.
    """
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        repository = f"{namespace}/{repository_name(variant)}"
        group = groups.setdefault(repository, [])
        place = folder_in_repository(variant)
        for other in group:
            if other.root.resolve() == variant.root.resolve():
                raise UsageError(f"{variant.root}: is given twice")
            if folder_in_repository(other) == place:
                raise UsageError(
                    f"{variant.root} and {other.root} would both be published as {repository}"
                )
        group.append(variant)
    return {name: tuple(group) for name, group in groups.items()}


def published_paths(variant: Variant, *, validated: bool) -> dict[str, str]:
    """The variant's own files: name in its folder -> path in its repository.

    The manifest's files, the manifest and its signature, if there is one, and the report with its
    pictures if it is relied on. What is generated for the repository as a whole is not among them.
    """
    inner = folder_in_repository(variant)
    names = {name: name for name in variant.manifest.files}
    names[MANIFEST_NAME] = inner + MANIFEST_NAME
    if (variant.root / SIGNATURE).is_file():
        names[SIGNATURE] = inner + SIGNATURE
    report = read_report(variant) if validated else None
    if report is not None:
        for name in (REPORT_NAME, *report_images(report, variant.root)):
            names[name] = inner + name
        if read_blind_tests(variant):
            names[BLIND_TEST_NAME] = inner + BLIND_TEST_NAME
    return names


def report_images(report: Report, root: Path) -> tuple[str, ...]:
    """The report's pictures; raises `BadInput` if one lies elsewhere, `CheckFailed` if one is not
    what the report was made with."""
    for name in report.picture_names:
        if not is_safe_path(name) or not name.startswith(f"{IMAGES}/"):
            raise BadInput(f"{root}/{REPORT_NAME}: names a picture outside {IMAGES}/")

    def hash_of(name: str) -> str | None:
        file = root / name
        return hash_file(file).sha256 if file.is_file() else None

    if wrong := picture_problems(report, hash_of):
        raise CheckFailed(f"{root}/{wrong[0]}")
    return report.picture_names


def assemble(
    repository: str,
    variants: tuple[Variant, ...],
    documents: Mapping[str, str],
    *,
    validated: bool,
) -> Publication:
    """The publication of these variants, with the generated texts in `documents`.

    Raises `NotAVariant` for a missing file or a symbolic link, `BadInput` if variants that share
    the repository disagree about a file of it.
    """
    files: dict[str, PublishedFile] = {}
    for variant in variants:
        for name, path in published_paths(variant, validated=validated).items():
            file = _from_disk(variant, name, path)
            if path in files and files[path].record != file.record:
                raise BadInput(
                    f"{variant.root}/{name}: differs from that of {variants[0].root}, and both "
                    f"would be {repository}/{path}; quantize them with the same versions"
                )
            files[path] = file
    # A licence that somebody put beside the variant, and that its manifest therefore lacks.
    licence = licence_of(variants[0]).file
    if licence is not None and licence not in documents:
        files[licence] = _from_disk(variants[0], licence, licence)
    for name, text in documents.items():
        content = text.encode()
        digest = hashlib.sha256(content).hexdigest()
        record = FileRecord(size=len(content), sha256=digest)
        files[name] = PublishedFile(name, content, record)
    return Publication(repository, variants, dict(sorted(files.items())))


def _from_disk(variant: Variant, name: str, path: str) -> PublishedFile:
    _refuse_links(variant, name)
    place = variant.root / name
    stamp = _stamp(place)
    if stamp is None:
        raise NotAVariant(f"{place}: is missing")
    record = variant.manifest.files.get(name) or hash_file(place)
    return PublishedFile(path, place, record, stamp)


def _refuse_links(variant: Variant, name: str) -> None:
    place = variant.root / name
    if place.resolve() != variant.root.resolve() / name:
        raise NotAVariant(f"{place}: is a symbolic link, and only real files are published")


def _stamp(place: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from another without reading it; None without the file."""
    try:
        found = os.lstat(place)
    except OSError:
        return None
    is_file = stat.S_ISREG(found.st_mode)
    return (found.st_size, found.st_mtime_ns, found.st_ino) if is_file else None
