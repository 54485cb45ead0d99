"""Whether what stands in the output already is what the command would make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluxconv.converters.errors import NotAVariant, OutputExists
from fluxconv.converters.journal import JOURNAL_NAME
from fluxconv.converters.manifest import MANIFEST_NAME, FileRecord
from fluxconv.converters.progress import Progress
from fluxconv.converters.staging import restore
from fluxconv.converters.variant import Variant, open_variant


def already_made(
    place: Path, subject: Mapping[str, Any], *, overwrite: bool, progress: Progress
) -> Variant | None:
    """The finished variant in `place`, as far as its manifest tells, made of what `subject` says.

    None if there is nothing there, or if it is to be replaced. Raises `OutputExists` if there is
    anything else. The source's hashes are not compared; see `confirm`.
    """
    restore(place)
    if overwrite or not (place.exists() or place.is_symlink()):
        return None
    ways_out = "remove it, choose another folder, or give --overwrite"
    try:
        variant = open_variant(place)
    except NotAVariant as error:
        if (place / MANIFEST_NAME).is_file():
            raise OutputExists(f"{place}: exists, and is damaged ({error}); {ways_out}") from None
        raise OutputExists(
            f"{place}: exists and is no variant; remove it, or choose another folder"
        ) from None
    found = variant.manifest.model_dump(mode="json")
    found["source"] = [found["source"][key] for key in ("id", "revision", "metadata")]
    found["components"] = list(found["components"])
    for key, value in subject.items():
        if key in found and found[key] != value:
            raise OutputExists(f"{place}: exists, and its {key} differ; {ways_out}")
    try:
        variant.check_hashes(progress)
    except NotAVariant as damage:
        raise OutputExists(f"{place}: exists, and is damaged ({damage}); {ways_out}") from None
    return variant


def confirm(variant: Variant, source_files: Mapping[str, FileRecord]) -> None:
    """Raise `OutputExists` unless the variant was made from just these files.

    If it was, what a kill right after its last rename may have left in it is removed.
    """
    if variant.manifest.source.files != dict(source_files):
        raise OutputExists(
            f"{variant.root}: exists, made from other weights; remove it, choose another folder, "
            "or give --overwrite"
        )
    (variant.root / JOURNAL_NAME).unlink(missing_ok=True)
