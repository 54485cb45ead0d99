"""Whether a checkpoint is the very source that a variant was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fluxconv.converters.checkpoint import CARRIED_FILES, Checkpoint
from fluxconv.converters.errors import BadInput
from fluxconv.converters.manifest import FileRecord
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import Variant, hash_file


def check_sizes(
    variants: Sequence[Variant], reference: Checkpoint, *, force: bool
) -> list[str | None]:
    """For each variant, how the sizes of `reference`'s files differ from those of its recorded
    source; None if they do not. Raises `BadInput` at the first difference, unless `force`."""
    found = []
    for variant in variants:
        difference = _size_difference(_recorded(variant), reference)
        _refuse(variant, reference, difference, force)
        found.append(difference)
    return found


def hash_reference(reference: Checkpoint, progress: Progress) -> dict[str, str]:
    """The sha256 of each file that decides what `reference` draws."""
    files = {
        name: path
        for name, path in sorted(reference.files.items())
        if name not in CARRIED_FILES and path.is_file()
    }
    progress.start("Checking the reference", sum(path.stat().st_size for path in files.values()))
    hashes = {}
    for name, path in files.items():
        record = hash_file(path)
        hashes[name] = record.sha256
        progress.advance(record.size, name)
    progress.finish()
    return hashes


def check_hashes(
    variants: Sequence[Variant],
    reference: Checkpoint,
    hashes: Mapping[str, str],
    *,
    force: bool,
) -> list[str | None]:
    """For each variant, how `hashes` differ from its recorded source's; None if they do not.
    Raises `BadInput` at the first difference, unless `force`."""
    found = []
    for variant in variants:
        difference = None
        for name, record in _recorded(variant).items():
            if hashes.get(name) != record.sha256:
                difference = f"{name} has other contents"
                break
        _refuse(variant, reference, difference, force)
        found.append(difference)
    return found


def _recorded(variant: Variant) -> Mapping[str, FileRecord]:
    """The source's files that decide what is drawn: licences and validation settings do not."""
    files = variant.manifest.source.files
    return {name: record for name, record in files.items() if name not in CARRIED_FILES}


def _size_difference(recorded: Mapping[str, FileRecord], reference: Checkpoint) -> str | None:
    for name, record in recorded.items():
        path = reference.files.get(name)
        if path is None or not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != record.size:
            return f"{name} has {size} bytes, not {record.size}"
    return None


def _refuse(variant: Variant, reference: Checkpoint, difference: str | None, force: bool) -> None:
    if difference is not None and not force:
        raise BadInput(
            f"{reference.opening.path}: is not the checkpoint that {variant.name} was made from: "
            f"{difference}; give the right one with --reference, or --force to compare anyway"
        )
