"""A variant back to a plain bf16 checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fluxconv.converters import safetensors_header
from fluxconv.converters.backends.base import plain
from fluxconv.converters.layout import LayoutWriter
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.staging import staged
from fluxconv.converters.stored import decode_component
from fluxconv.converters.stream import as_bytes
from fluxconv.converters.variant import Variant


def dequantize(variant: Variant, output: Path, *, progress: Progress | None = None) -> Path:
    """Write the variant's weights, decoded, as a bf16 checkpoint at `output`; returns it.

    Streams tensor by tensor. The result opens with `FluxPipeline.from_pretrained`. Raises
    `OutputExists`, `MalformedFile`, `NotAVariant`.
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
        (folder / "README.md").write_text(_readme(variant), "utf-8")
        for plan in plans.values():
            _write_component(variant.root, plan, folder, progress)
    progress.finish()
    return output


def _readme(variant: Variant) -> str:
    """The source's metadata, its licence among them, and what these weights are."""
    import yaml

    manifest = variant.manifest
    metadata = manifest.source.metadata
    front = f"---\n{yaml.safe_dump(metadata, allow_unicode=True)}---\n\n" if metadata else ""
    return (
        f"{front}The weights of {manifest.name} ({variant.backend.title}) decoded to bf16. What "
        "quantizing them lost stays lost.\n"
    )


def _write_component(root: Path, plan: ComponentPlan, folder: Path, progress: Progress) -> None:
    import torch

    config = {key: value for key, value in plan.config.items() if key != "quantization_config"}
    place = folder / plan.component
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    file = safetensors_header.lay_out(
        f"{plan.component}/{plan.architecture.weights_name}.safetensors",
        [plain(spec.name, "BF16", spec.shape) for spec in plan.specs],
        {"format": "pt"},
    )
    with LayoutWriter(folder, (file,)) as writer:
        for name, weight in decode_component(root, plan):
            data = as_bytes(weight.to(torch.bfloat16))
            writer.write(name, data)
            progress.advance(data.nbytes, name)
