"""A quick validation, and copies of variants to be broken and looked at by single layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from fluxconv.converters import Checkpoint, Variant, open_variant
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Silent
from fluxconv.converters.stored import StoredEntry, component_entries
from fluxconv.converters.stream import as_bytes
from fluxconv.converters.variant import hash_file
from fluxconv.validators import Options, Report, Settings, verdict
from fluxconv.validators.structure import check_structure
from fluxconv.validators.thresholds import load_thresholds
from fluxconv.validators.weights import compare_weights

PROMPTS = ("a red circle on a blue background", "a large yellow star at the top, black background")
QUICK = Settings(height=64, width=64, steps=3, max_sequence_length=64, seeds=(1,), prompts=PROMPTS)
SAFETENSORS = "torchao-int8"
#: The variants, their reports, and the jobs that were run for them.
Validated = tuple[dict[str, Variant], tuple[Report, ...], list[tuple[str, str]]]


def quick(folder: Path, **options: Any) -> Options:
    """A validation without memory and time, its source's drawings in `folder`."""
    return Options(modes=(), cache=folder / "references", **options)


def copy_of(variant: Variant, folder: Path) -> Variant:
    return open_variant(shutil.copytree(variant.root, folder / variant.name))


def entry_of(variant: Variant, name: str) -> StoredEntry:
    return component_entries(variant.root, variant.component_plans()["transformer"])[name]


def overwrite(entry: StoredEntry, data: torch.Tensor) -> None:
    raw = as_bytes(data)
    assert raw.nbytes == entry.nbytes
    with entry.file.open("r+b") as stream:
        stream.seek(entry.offset)
        stream.write(raw)


def resign(variant: Variant) -> Variant:
    """Bring the manifest's hashes up to date, as a converter with a bug would."""
    file = variant.root / MANIFEST_NAME
    manifest = json.loads(file.read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hash_file(variant.root / name).model_dump()
    file.write_text(json.dumps(manifest))
    return open_variant(variant.root)


def structure_of(variant: Variant) -> tuple[str, ...]:
    return check_structure(variant.root, Silent()).problems


def failed_weights(variant: Variant, reference: Checkpoint) -> list[str]:
    """The sentences of the weights checks that fail."""
    results = compare_weights(variant.root, reference, Silent())
    limits = load_thresholds().for_bits(variant.backend.bits)
    return [check.text for check in verdict.weights_checks(results, limits) if not check.passed]
