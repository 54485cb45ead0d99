"""A variant that we made, taken as a source again: its weights are decoded on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.backends import PlannedTensor
from fluxconv.converters.codec import decode_target
from fluxconv.converters.component import Component
from fluxconv.converters.errors import MalformedFile, NotACheckpoint
from fluxconv.converters.gguf.raw import raw_header
from fluxconv.converters.gguf.reader import read_gguf_header
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.safetensors_header import Header, read_header
from fluxconv.converters.steps import Step
from fluxconv.converters.stored import component_entries, matches, split_rows
from fluxconv.converters.variant import Variant, open_variant

if TYPE_CHECKING:
    import torch

#: The backends whose variants lose little enough to start from again, by the start of their names.
REQUANTIZED = ("gguf-", "fp8-layerwise", "torchao-fp8")


def open_quantized(root: Path, *, allowed: bool) -> tuple[Variant, dict[str, Component]]:
    """The variant at `root` and its components, with steps that decode them to bf16.

    Raises `NotACheckpoint` unless it is `allowed` and the backend is one of those that come close
    to the source; `NotAVariant` or `MalformedFile` if the variant is damaged.
    """
    variant = open_variant(root)
    how = variant.manifest.backend
    if not how.startswith(REQUANTIZED):
        raise NotACheckpoint(
            f"{root}: is already quantized ({how}); dequantize it first with `fluxconv "
            "dequantize`, or give the checkpoint it was made from"
        )
    if not allowed:
        raise NotACheckpoint(
            f"{root}: is already quantized ({how}); give the checkpoint it was made from, or "
            "--allow-requantize to quantize what it holds once more"
        )
    plans = variant.component_plans()
    return variant, {name: _component(variant.root, plan) for name, plan in plans.items()}


def _component(root: Path, plan: ComponentPlan) -> Component:
    entries = component_entries(root, plan)
    for planned in plan.tensors:
        for stored in planned.stored:
            if stored.name not in entries or not matches(entries[stored.name], stored):
                raise MalformedFile(f"{root}: its tensor '{stored.name}' is not as planned")
    files = [root / file.name for file in plan.files]
    shapes = {spec.name: spec.shape for spec in plan.specs}
    return Component(
        plan.component,
        root / plan.component,
        {key: value for key, value in plan.config.items() if key != "quantization_config"},
        plan.architecture,
        tuple(map(_header, files)),
        tuple(_step(plan, planned, shapes) for planned in plan.tensors),
        {
            path.relative_to(root).as_posix(): path
            for path in (root / plan.component / "config.json", *files)
        },
    )


def _step(
    plan: ComponentPlan, planned: PlannedTensor, shapes: Mapping[str, tuple[int, ...]]
) -> Step:
    def assemble(stored: Mapping[str, torch.Tensor]) -> Iterable[tuple[str, torch.Tensor]]:
        import torch

        weight = decode_target(plan.backend, planned, stored).to(torch.bfloat16)
        return split_rows(weight, planned.target.slices, shapes)

    return Step(
        tuple(stored.name for stored in planned.stored),
        tuple({part.tensor: None for part in planned.target.slices}),
        assemble,
    )


def _header(file: Path) -> Header:
    """The header of a safetensors or GGUF file; a GGUF tensor is raw bytes here."""
    if file.suffix != ".gguf":
        return read_header(file)
    return raw_header(read_gguf_header(file))
