"""A variant, or a quantized file of anybody's, back to a plain bf16 checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.converters import safetensors_header
from fluxconv.converters.architectures import Architecture, TensorSpec
from fluxconv.converters.backends.base import plain
from fluxconv.converters.checkpoint import Checkpoint, Component
from fluxconv.converters.errors import BadWeight
from fluxconv.converters.layout import LayoutWriter
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.staging import staged
from fluxconv.converters.stored import decode_component
from fluxconv.converters.stream import as_bytes
from fluxconv.converters.variant import Variant
from fluxconv.converters.visible import visible_path

if TYPE_CHECKING:
    import torch


def dequantize(variant: Variant, output: Path, *, progress: Progress | None = None) -> Path:
    """Write the variant's weights, decoded, as a bf16 checkpoint at `output`; returns it.

    Streams tensor by tensor. The result opens with `FluxPipeline.from_pretrained`. Raises
    `OutputExists`, `MalformedFile`, `NotAVariant`, and `BadWeight` for a weight that decodes to NaN
    or infinity.
    """
    progress = progress or Silent()
    plans = variant.component_plans()
    weights = {file.name for plan in plans.values() for file in plan.files}
    progress.start(
        "Dequantizing", sum(2 * spec.numel for plan in plans.values() for spec in plan.specs)
    )
    with staged(output) as folder:
        for name in variant.manifest.files:
            if name not in weights and name.split("/")[0] not in plans:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(variant.root / name, folder / name)
        manifest = variant.manifest
        text = _readme(manifest.source.metadata, manifest.name, variant.backend.title)
        (folder / "README.md").write_text(text, "utf-8")
        for plan in plans.values():
            decoded = decode_component(variant.root, plan)
            part = _Part(variant.root, plan.architecture, plan.config, plan.specs, decoded)
            _write_part(part, folder, plan.component, progress)
    progress.finish()
    return output


def dequantize_file(
    checkpoint: Checkpoint, output: Path, *, progress: Progress | None = None
) -> Path:
    """Write the component that `checkpoint` has from a single file, decoded, as a bf16 checkpoint
    at `output`; returns it.

    That is the component's folder, or, where it was opened with a base, that whole pipeline.
    Streams tensor by tensor. Raises `OutputExists`, `MalformedFile`, `UsageError`, and `BadWeight`
    for a weight that decodes to NaN or infinity.
    """
    progress = progress or Silent()
    todo = {name: each for name, each in checkpoint.components.items() if not each.carried}
    progress.start(
        "Dequantizing", sum(2 * spec.numel for each in todo.values() for spec in _specs(each))
    )
    with staged(output) as folder:
        for name, path in checkpoint.carried_files(todo).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        for name, each in todo.items():
            place = name if checkpoint.is_pipeline else "."
            part = _Part(each.path, each.architecture, each.config, _specs(each), each.weights())
            _write_part(part, folder, place, progress)
        text = _readme(checkpoint.front_matter, checkpoint.name, checkpoint.requantized)
        (folder / "README.md").write_text(text, "utf-8")
    progress.finish()
    return output


@dataclass(frozen=True)
class _Part:
    """A component to write: its `origin`, what it is, and its `weights` by name, in any order."""

    origin: Path
    architecture: Architecture
    config: Mapping[str, Any]
    specs: tuple[TensorSpec, ...]
    weights: Iterable[tuple[str, torch.Tensor]]


def _specs(component: Component) -> tuple[TensorSpec, ...]:
    return component.architecture.specs(component.config)


def _readme(metadata: Mapping[str, Any], name: str, how: str | None) -> str:
    """The source's metadata, its licence among them, and what these weights are."""
    import yaml

    front = f"---\n{yaml.safe_dump(dict(metadata), allow_unicode=True)}---\n\n" if metadata else ""
    return (
        f"{front}The weights of {name} ({how or 'a single file'}) decoded to bf16. What quantizing "
        "them lost stays lost.\n"
    )


def _write_part(part: _Part, folder: Path, place: str, progress: Progress) -> None:
    import torch

    config = {key: value for key, value in part.config.items() if key != "quantization_config"}
    (folder / place).mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / place / "config.json").write_text(text, "utf-8")
    file = safetensors_header.lay_out(
        f"{place}/{part.architecture.weights_name}.safetensors",
        [plain(spec.name, "BF16", spec.shape) for spec in part.specs],
        {"format": "pt"},
    )
    with LayoutWriter(folder, (file,)) as writer:
        for name, weight in part.weights:
            decoded = weight.to(torch.bfloat16)
            _check_finite(decoded, name, part.origin)
            data = as_bytes(decoded)
            writer.write(name, data)
            progress.advance(data.nbytes, name)


def _check_finite(weight: torch.Tensor, name: str, origin: Path) -> None:
    import torch

    if weight.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(weight))).all()):
        raise BadWeight(
            f"{visible_path(origin)}: '{name}' decodes to NaN or infinity: the file is damaged; "
            "get it again"
        )
