"""What the manifest says of a variant and of its source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.journal import JOURNAL_NAME
from fluxconv.converters.manifest import (
    MANIFEST_NAME,
    ComponentRecord,
    Engine,
    FileRecord,
    KeptTensor,
    Manifest,
    SourceRecord,
)
from fluxconv.converters.planning import ComponentPlan, VariantPlan
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import hash_file

_VERSIONED = (
    "fluxconv",
    "torch",
    "diffusers",
    "transformers",
    "safetensors",
)


def subject(item: VariantPlan, device: str, engine: Engine) -> dict[str, Any]:
    """All that decides a variant's bytes, except for the contents of the source's files.

    The journal of an interrupted run holds it, and a finished variant's manifest most of it.
    """
    layout = hashlib.sha256()
    for component in item.components:
        for file in component.files:
            layout.update(file.name.encode() + file.header)
    return {
        "name": item.name,
        "checkpoint": item.checkpoint.name,
        "source": [
            item.checkpoint.source,
            item.checkpoint.revision,
            _metadata(item.checkpoint),
        ],
        "backend": item.backend.name,
        "options": item.backend.options.changed(),
        "components": [component.component for component in item.components],
        "versions": _versions(item),
        "device": device,
        "engine": engine,
        "weights, sizes or dates of the source": [
            [name, path.stat().st_size, path.stat().st_mtime_ns]
            for name, path in _source_files(item.checkpoint, item).items()
        ],
        "layout": layout.hexdigest(),
    }


def source_record(
    checkpoint: Checkpoint, item: VariantPlan, hashes: Mapping[Path, str], progress: Progress
) -> SourceRecord:
    """The source's files, with the `hashes` of those that were read; the others are read now."""
    paths = _source_files(checkpoint, item)
    left = {name: path for name, path in paths.items() if path not in hashes}
    progress.start("Hashing the source", sum(path.stat().st_size for path in left.values()))
    files = {}
    for name, path in paths.items():
        if path in hashes:
            files[name] = FileRecord(size=path.stat().st_size, sha256=hashes[path])
        else:
            files[name] = hash_file(path)
            progress.advance(files[name].size, name)
    progress.finish()
    return SourceRecord(
        id=checkpoint.source,
        revision=checkpoint.revision,
        base=checkpoint.base,
        requantized=checkpoint.requantized,
        files=dict(sorted(files.items())),
        metadata=_metadata(checkpoint),
    )


@dataclass(frozen=True)
class MadeBy:
    """On what, and by whom, a variant was encoded."""

    device: str
    engine: Engine


def write_manifest(
    item: VariantPlan,
    components: Sequence[ComponentPlan],
    folder: Path,
    source: SourceRecord,
    made_by: MadeBy,
    hashed: Mapping[Path, Future[FileRecord]],
    progress: Progress,
) -> None:
    """Hash every file of the variant in `folder`, and write its manifest, the last file of all.

    `components` are the plans as they were carried out, `hashed` the files that others hash.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (JOURNAL_NAME, MANIFEST_NAME):
            record = hashed[path].result() if path in hashed else hash_file(path)
            files[path.relative_to(folder).as_posix()] = record
            progress.advance(record.size, f"{item.name}/{path.name}")
    weights = sum(spec.numel for component in components for spec in component.specs)
    stored = sum(tensor.nbytes for component in components for tensor in component.tensors)
    manifest = Manifest(
        name=item.name,
        checkpoint=item.checkpoint.name,
        backend=item.backend.name,
        options=item.backend.options.changed(),
        source=source,
        versions=_versions(item),
        device=made_by.device,
        engine=made_by.engine,
        bits_per_weight=round(8 * stored / weights, 4),
        components={c.component: _component_record(item, c) for c in components},
        files=files,
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")


def _metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dict(checkpoint.front_matter), default=str))
    return found


def _versions(item: VariantPlan) -> dict[str, str]:
    packages = (*_VERSIONED, item.backend.requirement.package)
    return {package: metadata.version(package) for package in packages}


def _source_files(checkpoint: Checkpoint, item: VariantPlan) -> dict[str, Path]:
    """Every file that is read or carried over, by the name that the manifest gives it."""
    read = checkpoint.source_files([component.component for component in item.components])
    return dict(sorted({**read, **item.carried}.items()))


def _component_record(item: VariantPlan, component: ComponentPlan) -> ComponentRecord:
    return ComponentRecord(
        files=[file.name for file in component.files],
        loader=component.backend.loader(component.architecture),
        bits_per_weight=round(component.bits_per_weight, 4),
        weight_bytes=component.nbytes,
        source_bytes=item.checkpoint.components[component.component].weight_bytes,
        quantized=sum(tensor.quantized for tensor in component.tensors),
        kept=[
            KeptTensor(name=tensor.name, dtype=tensor.stored[0].dtype, reason=tensor.reason)
            for tensor in component.tensors
            if not tensor.quantized
        ],
    )
