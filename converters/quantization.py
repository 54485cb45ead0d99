"""One pass over a checkpoint that writes every variant asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

from fluxconv.converters.backends import Backend, require
from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import BadInput
from fluxconv.converters.layout import LayoutWriter
from fluxconv.converters.manifest import (
    MANIFEST_NAME,
    ComponentRecord,
    FileRecord,
    KeptTensor,
    Manifest,
    SourceRecord,
)
from fluxconv.converters.planning import ComponentPlan, VariantPlan, plan
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.staging import check_free, staged
from fluxconv.converters.stored import component_entries
from fluxconv.converters.stream import stream_component
from fluxconv.converters.variant import Variant, hash_file, open_variant

_VERSIONED = (
    "fluxconv",
    "torch",
    "diffusers",
    "transformers",
    "safetensors",
)


def quantize(
    checkpoint: Checkpoint,
    backends: Sequence[str | Backend],
    output: Path,
    *,
    components: tuple[str, ...] = (),
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Variant, ...]:
    """Write one variant for each backend into `output`, reading the source once.

    Each variant is staged in a hidden folder beside its place, hashed after reopening, and renamed
    into place when all is well; until then, and after any failure, `output` holds what it held.
    Raises `MissingRequirement`, `OutputExists`, `BadWeight`, `MalformedFile`, `BadInput`.
    """
    progress = progress or Silent()
    plans = plan(checkpoint, backends, components)
    if output.resolve().is_relative_to(checkpoint.root):
        raise BadInput(f"{output}: lies in the source, which is never written to; choose another")
    for item in plans:
        require(item.backend, device)
        check_free(output / item.name, overwrite=overwrite)
    check_space(plans, output)
    with ExitStack() as commits:
        folders = [
            commits.enter_context(staged(output / item.name, overwrite=overwrite)) for item in plans
        ]
        hashes = _stream(checkpoint, plans, folders, device, progress)
        source = _source_record(checkpoint, plans[0], hashes)
        progress.start("Hashing", sum(item.nbytes for item in plans))
        for item, folder in zip(plans, folders, strict=True):
            _copy_carried(item, folder)
            _write_configs(item, folder)
            _reopen(item, folder)
            _write_manifest(item, folder, source, device, progress)
        progress.finish()
    return tuple(open_variant(output / item.name) for item in plans)


def check_space(plans: Sequence[VariantPlan], output: Path) -> None:
    """Raise `BadInput` if the disk of `output` has less free space than the plans need."""
    needed = sum(item.nbytes for item in plans)
    place = output.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise BadInput(
            f"{output}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; choose "
            "another disk with -o, or fewer backends"
        )


def _stream(
    checkpoint: Checkpoint,
    plans: Sequence[VariantPlan],
    folders: Sequence[Path],
    device: str,
    progress: Progress,
) -> dict[str, str]:
    names = [component.component for component in plans[0].components]
    progress.start("Quantizing", sum(checkpoint.components[name].nbytes for name in names))
    hashes: dict[str, str] = {}
    for index, name in enumerate(names):
        with ExitStack() as stack:
            outputs: list[tuple[ComponentPlan, LayoutWriter]] = []
            for item, folder in zip(plans, folders, strict=True):
                component_plan = item.components[index]
                writer = stack.enter_context(LayoutWriter(folder, component_plan.files))
                outputs.append((component_plan, writer))
            found = stream_component(checkpoint.components[name], outputs, device, progress)
            prefix = checkpoint.components[name].path.relative_to(checkpoint.root)
            hashes |= {(prefix / file).as_posix(): value for file, value in found.items()}
    progress.finish()
    return hashes


def _copy_carried(item: VariantPlan, folder: Path) -> None:
    for path in item.carried:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.checkpoint.root / path, folder / path)


def _write_configs(item: VariantPlan, folder: Path) -> None:
    for component in item.components:
        config = quantized_config(component)
        place = folder / component.component
        place.mkdir(exist_ok=True)
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (place / "config.json").write_text(text, "utf-8")
        if component.index is not None:
            name = f"{component.architecture.weights_name}.safetensors.index.json"
            text = json.dumps(component.index, indent=2, sort_keys=True) + "\n"
            (place / name).write_text(text, "utf-8")
        extra = component.backend.extra_files(component.tensors, component.architecture)
        for name, text in extra.items():
            (place / name).write_text(text, "utf-8")


def quantized_config(component: ComponentPlan) -> dict[str, Any]:
    """The component's `config.json` as its library would save it, quantization included."""
    config = dict(component.config)
    if component.architecture.library == "transformers":
        config |= {"transformers_version": metadata.version("transformers"), "dtype": "bfloat16"}
    else:
        config |= {"_diffusers_version": metadata.version("diffusers")}
        config.pop("_name_or_path", None)  # a path of the machine that saved the source
    quantization = component.backend.quantization_config(component.architecture, component.skipped)
    if quantization is not None:
        config["quantization_config"] = quantization
    return config


def _reopen(item: VariantPlan, folder: Path) -> None:
    """Read back what was written: every stored tensor stands where the plan has it."""
    for component in item.components:
        entries = component_entries(folder, component)
        for tensor in component.tensors:
            for stored in tensor.stored:
                entry = entries[stored.name]
                if (entry.dtype, entry.shape, entry.nbytes) != (
                    stored.dtype,
                    stored.shape,
                    stored.nbytes,
                ):
                    raise RuntimeError(f"{stored.name}: written as {entry}, planned as {stored}")


def _source_record(
    checkpoint: Checkpoint, item: VariantPlan, hashes: Mapping[str, str]
) -> SourceRecord:
    files = {
        name: FileRecord(size=(checkpoint.root / name).stat().st_size, sha256=sha256)
        for name, sha256 in hashes.items()
    }
    configs = [
        (checkpoint.components[c.component].path / "config.json").relative_to(checkpoint.root)
        for c in item.components
    ]
    for path in [*item.carried, *configs]:
        files[path.as_posix()] = hash_file(checkpoint.root / path)
    return SourceRecord(
        id=checkpoint.source,
        revision=checkpoint.revision,
        files=dict(sorted(files.items())),
        metadata=json.loads(json.dumps(dict(checkpoint.front_matter), default=str)),
    )


def _write_manifest(
    item: VariantPlan, folder: Path, source: SourceRecord, device: str, progress: Progress
) -> None:
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            record = hash_file(path)
            files[path.relative_to(folder).as_posix()] = record
            progress.advance(record.size, f"{item.name}/{path.name}")
    manifest = Manifest(
        name=item.name,
        checkpoint=item.checkpoint.name,
        backend=item.backend.name,
        options=item.backend.options.changed(),
        source=source,
        versions={
            package: metadata.version(package)
            for package in (*_VERSIONED, item.backend.requirement.package)
        },
        device=device,
        bits_per_weight=round(item.bits_per_weight, 4),
        components={c.component: _component_record(item, c) for c in item.components},
        files=files,
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")


def _component_record(item: VariantPlan, component: ComponentPlan) -> ComponentRecord:
    loader = "from_single_file" if item.backend.container == "gguf" else "from_pretrained"
    if component.architecture.library == "transformers":
        loader = "from_pretrained"
    return ComponentRecord(
        files=[file.name for file in component.files],
        loader=f"{component.architecture.library}.{component.architecture.class_name}.{loader}",
        bits_per_weight=round(component.bits_per_weight, 4),
        weight_bytes=component.nbytes,
        source_bytes=item.checkpoint.components[component.component].nbytes,
        quantized=sum(tensor.quantized for tensor in component.tensors),
        kept=[
            KeptTensor(name=tensor.name, dtype=tensor.stored[0].dtype, reason=tensor.reason)
            for tensor in component.tensors
            if not tensor.quantized
        ],
    )
