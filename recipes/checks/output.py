"""Where the variants go: the folder or URL, what stands there already, and room for the rest."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from fluxconv.converters.errors import DiskFull, MissingRequirement, NotAVariant
from fluxconv.converters.planning import VariantPlan
from fluxconv.converters.records import subject
from fluxconv.converters.settling import needs_settling
from fluxconv.converters.staging import hidden
from fluxconv.converters.variant import open_variant
from fluxconv.converters.visible import visible, visible_path
from fluxconv.recipes.checked import CheckedVariant
from fluxconv.recipes.checks.findings import Findings
from fluxconv.recipes.checks.sources import Source
from fluxconv.recipes.markers import FOLDER
from fluxconv.recipes.recipe_file import RecipeFile

_URL = re.compile(r"[a-z][a-z0-9+.-]*://.+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLACE = ("output",)


def output_of(file: RecipeFile, found: Findings) -> Path | str:
    """The folder, absolute, or the URL of a file system that is known here."""
    text = file.recipe.output
    if not _URL.fullmatch(text):
        return Path(os.path.realpath(file.path(text)))
    scheme, _, rest = text.partition("://")
    if scheme == "file":
        return Path(os.path.realpath(f"/{rest.lstrip('/')}"))
    if scheme in ("memory", "local"):
        where = visible(text, 200)
        found.problem(_PLACE, f"{where}: is the memory of one process; choose what all share")
        return text
    fsspec = import_module("fsspec")  # it has no types
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        said = visible(error, 200)
        found.problem(_PLACE, f"{scheme}://: {said}", MissingRequirement.exit_code)
    except ValueError:
        found.problem(_PLACE, f"{scheme}:// is no file system that fsspec knows")
    if (file.recipe.executor.parts or 1) > 1:
        found.problem(
            ("executor", "parts"),
            "the parts of a pass need a folder that all workers see, and `output` is a URL; do "
            "without parts",
        )
    return text


def check_output(
    output: Path, sources: Sequence[Source], variants: Sequence[CheckedVariant], found: Findings
) -> None:
    """The folder can be written, and is no part of what is read, nor the other way round."""
    shown = visible_path(output)
    try:
        for source in sources:
            _refuse_circles(output, source, variants, found)
        there = nearest_folder(output)
        if not there.is_dir():
            found.problem(_PLACE, f"{shown}: {visible_path(there)} is no folder")
        elif not os.access(there, os.W_OK | os.X_OK):
            found.problem(_PLACE, f"{shown}: {visible_path(there)} cannot be written")
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, with NUL, a circle
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        found.problem(_PLACE, f"{shown}: {visible(why, 200)}")


def _refuse_circles(
    output: Path, source: Source, variants: Sequence[CheckedVariant], found: Findings
) -> None:
    for key, text in (("id", source.id), ("base", source.base)):
        if text is None or not Path(text).is_absolute():
            continue
        read = Path(os.path.realpath(text))
        if output.is_relative_to(read):
            found.problem(
                _PLACE,
                f"{visible_path(output)}: lies in the source {visible_path(text)}, which is never "
                "written to; choose another folder",
            )
        for each in variants:
            if read.is_relative_to(output / each.name):
                found.problem(
                    (*source.place, key),
                    f"{visible_path(text)}: is what this recipe is to make ({visible(each.name)}); "
                    "make it with a recipe of its own",
                )


def nearest_folder(place: Path) -> Path:
    """The place itself, or what is there of the folders above it."""
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return place


def still_to_write(
    output: Path, source: Source, plans: Sequence[VariantPlan], device: str, found: Findings
) -> int:
    """Bytes that the variants of one checkpoint take beside what is there. One that stands there
    already must be what would be made."""
    needed = 0
    for item in plans:
        place = output / item.name
        if os.path.lexists(place) and not _will_be_replaced(place, item, source, device, found):
            continue
        partial = hidden(place, "partial")
        kept = sum(p.stat().st_blocks * 512 for p in partial.rglob("*") if p.is_file())
        needed += max(0, item.nbytes - kept)
        # The copy of a file with its true sizes stands beside it for a while.
        needed += max(
            (file.size for c in item.components if needs_settling(c) for file in c.files), default=0
        )
    return needed


def _will_be_replaced(
    place: Path, item: VariantPlan, source: Source, device: str, found: Findings
) -> bool:
    """Whether what stands there was made by a run of this recipe, of another state of the source or
    with other libraries. A problem if it is anything else than what would be made."""
    shown = visible_path(place)
    try:
        manifest = open_variant(place).manifest.model_dump(mode="json")
    except NotAVariant:
        found.problem(_PLACE, f"{shown}: exists and is no variant; remove it, or choose another")
        return False
    was = manifest["source"]
    now, asked = item.checkpoint.revision, source.row.revision
    moved = was["id"] == item.checkpoint.source and was["revision"] != now
    if moved and not _COMMIT.fullmatch(asked or ""):
        found.problem(
            (*source.place, "revision"),
            f"{visible(source.row.id)}: {visible(asked or 'its newest revision')} has moved from "
            f"{visible(was['revision'])} to {now} since {shown} was made; write one of the two as "
            "its `revision:`, the first to finish the release, the second to make it anew",
        )
        return False
    manifest["source"] = [was[key] for key in ("id", "revision", "metadata")]
    manifest["components"] = list(manifest["components"])
    wanted = subject(item, device, "stream")
    differ = [key for key in wanted if key in manifest and manifest[key] != wanted[key]]
    if not differ:
        return False
    if set(differ) <= {"source", "versions"} and (place.parent / FOLDER).is_dir():
        found.remark(f"{shown}: will be made again, as its {' and '.join(differ)} changed")
        return True
    found.problem(
        _PLACE,
        f"{shown}: exists, and its {' and '.join(differ)} differ; remove it, or choose another "
        "folder",
    )
    return False


def check_room(output: Path, to_write: int, to_download: int, found: Findings) -> int | None:
    """What is free for the variants, in bytes; a problem if it is not enough."""
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        there, cache = nearest_folder(output), nearest_folder(Path(HF_HUB_CACHE))
        free, free_cache = shutil.disk_usage(there).free, shutil.disk_usage(cache).free
        one_disk = there.stat().st_dev == cache.stat().st_dev
    except (OSError, ValueError):
        return None  # told as a problem of the output already
    if free < to_write + (to_download if one_disk else 0):
        more = f" and {_size(to_download)} for the Hub's cache" if one_disk and to_download else ""
        found.problem(
            _PLACE,
            f"{visible_path(output)}: {_size(to_write)} are needed{more}, and {_size(free)} are "
            "free; choose another disk, or fewer backends",
            DiskFull.exit_code,
        )
    elif not one_disk and free_cache < to_download:
        found.problem(
            ("checkpoints",),
            f"{HF_HUB_CACHE}: {_size(to_download)} are needed for the Hub's cache, and "
            f"{_size(free_cache)} are free; set HF_HOME to a folder of another disk",
            DiskFull.exit_code,
        )
    return free


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"
