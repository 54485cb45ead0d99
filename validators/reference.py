"""Whether a checkpoint is the very source that a variant was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fluxconv.converters.checkpoint import CARRIED_FILES, Checkpoint
from fluxconv.converters.errors import BadInput
from fluxconv.converters.manifest import FileRecord
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import Variant, hash_file


def check_reference(
    variants: Sequence[Variant], reference: Checkpoint, *, force: bool, progress: Progress
) -> list[str | None]:
    """For each variant, how `reference` differs from its recorded source; None if it does not.

    All sizes are compared before anything is hashed, and a file is hashed once for all variants.
    Raises `BadInput` at the first difference, unless `force`.
    """
    found: list[str | None] = []
    for variant in variants:
        found.append(_size_difference(_recorded(variant), reference))
        _refuse(variant, reference, found[-1], force)
    sizes = {
        name: record.size
        for variant, difference in zip(variants, found, strict=True)
        if difference is None
        for name, record in _recorded(variant).items()
    }
    progress.start("Checking the reference", sum(sizes.values()))
    hashes = {}
    for name, size in sizes.items():
        hashes[name] = hash_file(reference.files[name]).sha256
        progress.advance(size, name)
    progress.finish()
    for index, variant in enumerate(variants):
        if found[index] is None:
            found[index] = _hash_difference(_recorded(variant), hashes)
            _refuse(variant, reference, found[index], force)
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


def _hash_difference(recorded: Mapping[str, FileRecord], hashes: Mapping[str, str]) -> str | None:
    for name, record in recorded.items():
        if hashes[name] != record.sha256:
            return f"{name} has other contents"
    return None


def _refuse(variant: Variant, reference: Checkpoint, difference: str | None, force: bool) -> None:
    if difference is not None and not force:
        raise BadInput(
            f"{reference.opening.path}: is not the checkpoint that {variant.name} was made from: "
            f"{difference}; give the right one with --reference, or --force to compare anyway"
        )
