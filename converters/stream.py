"""The streaming loop: every source tensor is read once and every variant takes its share of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.checkpoint import Component
from fluxconv.converters.codec import encode_target
from fluxconv.converters.errors import BadWeight
from fluxconv.converters.layout import LayoutWriter
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.progress import Progress
from fluxconv.converters.reader import ComponentReader

if TYPE_CHECKING:
    import torch


def stream_component(
    component: Component,
    outputs: Sequence[tuple[ComponentPlan, LayoutWriter]],
    device: str,
    progress: Progress,
) -> Mapping[str, str]:
    """Write one component of every variant in one pass; returns the sha256 of each file read.

    Memory holds one source tensor and what is encoded from it, whatever the model's size and the
    number of variants. Raises `BadWeight` naming a tensor with NaN or infinity.
    """
    reader = ComponentReader(component)
    for info, weight in reader:
        _check_finite(weight, info.name, info.file)
        on_device = weight.to(device)
        for plan, writer in outputs:
            _write_share(plan, writer, info.name, on_device)
        progress.advance(info.nbytes, info.name)
    return reader.hashes


def _write_share(
    plan: ComponentPlan, writer: LayoutWriter, source: str, weight: torch.Tensor
) -> None:
    for planned, part, row in plan.by_source[source]:
        rows = weight[part.start : part.stop]
        encoded = encode_target(plan.backend, planned, rows)
        for stored in planned.stored:
            data = encoded.pop(stored.name)
            share = stored.nbytes * (part.stop - part.start) // planned.target.shape[0]
            if data.nbytes != share:
                raise RuntimeError(
                    f"{stored.name}: {plan.backend.name} encoded {data.nbytes} bytes where the "
                    f"plan has {share}"
                )
            writer.write(
                stored.name, as_bytes(data), row * stored.nbytes // planned.target.shape[0]
            )
        if encoded:
            raise RuntimeError(f"{planned.name}: not in the plan: {', '.join(encoded)}")


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of `tensor` as safetensors and GGUF hold them: contiguous, on the CPU."""
    import torch

    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _check_finite(weight: torch.Tensor, name: str, file: Path) -> None:
    import torch

    if not bool(torch.isfinite(weight).all()):
        kind = "NaN" if bool(torch.isnan(weight).any()) else "infinity"
        raise BadWeight(f"{file}: '{name}' contains {kind}; this checkpoint cannot draw")
