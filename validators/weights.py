"""The weights layer: every tensor of a variant, decoded, against its source.

Streams tensor by tensor. What is measured for a quantized tensor is the root of the mean squared
error relative to that of the source ("relative RMS"), over the tensor and over its worst stretch: a
block that lost its scale drowns in the tensor's mean, and in that of a row of thousands, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.checkpoint import Checkpoint, Component
from fluxconv.converters.errors import BadInput
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.progress import Progress
from fluxconv.converters.stored import decode_component
from fluxconv.converters.variant import open_variant
from fluxconv.validators.report import StretchError, TensorError, WeightsResult

if TYPE_CHECKING:
    import torch

_WORST = 10
_STRETCH = 256  # weights: several blocks of every format, so that one outlier does not rule it
_CHUNK = 1 << 20  # weights compared at once: the intermediate results stay in a few MB


@dataclass
class _Sums:
    """Running sums over one component."""

    error: float = 0.0
    source: float = 0.0
    kept: int = 0
    tensors: list[TensorError] = field(default_factory=list)
    stretches: list[StretchError] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def compare_weights(
    variant: Path, reference: Checkpoint, progress: Progress
) -> dict[str, WeightsResult]:
    """Compare each quantized component of the variant, opened here, with the reference's.

    Memory holds one packed tensor and its source, whatever the model's size. Raises `BadInput` if
    the reference lacks a component, `MalformedFile` if a tensor is missing.
    """
    opened = open_variant(variant)
    plans = opened.component_plans()
    for name in plans:
        if name not in reference.components:
            raise BadInput(f"{reference.opening.path}: has no {name} to compare with")
    weights = sum(spec.numel for plan in plans.values() for spec in plan.specs)
    progress.start(f"Comparing {opened.name}", 2 * weights)
    results = {
        name: _compare_component(opened.root, plan, reference.components[name], progress)
        for name, plan in plans.items()
    }
    progress.finish()
    return results


def _compare_component(
    root: Path, plan: ComponentPlan, source: Component, progress: Progress
) -> WeightsResult:
    sums = _Sums()
    for name, decoded in decode_component(root, plan):
        shape = source.shapes.get(name)
        if shape != tuple(decoded.shape):
            there = list(shape) if shape else "missing"
            sums.problems.append(
                f"'{name}' is {list(decoded.shape)} here and {there} in the reference"
            )
            continue
        original = source.read(name)
        planned = plan.by_source[name][0][0]
        with _one_thread():
            if planned.quantized:
                _measure(name, decoded, original, sums)
            else:
                _check_kept(name, decoded, original, planned.stored[0].dtype, sums)
        progress.advance(2 * original.numel(), name)
    worst = sorted(sums.tensors, key=lambda tensor: -tensor.relative_rms)[:_WORST]
    return WeightsResult(
        relative_rms=_relative(sums.error, sums.source),
        worst=tuple(worst),
        quantized=len(sums.tensors),
        kept=sums.kept,
        worst_stretch=max(sums.stretches, key=lambda found: found.relative_rms, default=None),
        problems=tuple(sums.problems),
    )


def _measure(name: str, decoded: torch.Tensor, original: torch.Tensor, sums: _Sums) -> None:
    error, norm = _stretch_sums(decoded, original)
    total_error, total_norm = float(error.sum()), float(norm.sum())
    if not math.isfinite(total_error):
        sums.problems.append(f"'{name}' decodes to NaN or infinity")
        return
    sums.error += total_error
    sums.source += total_norm
    sums.tensors.append(TensorError(name=name, relative_rms=_relative(total_error, total_norm)))
    if total_norm == 0:
        return
    # Small weights may share a scale with large ones, hence the floor of an average stretch; where
    # a scale is lost, the error stays near 1.
    relative = error / norm.clamp(min=total_norm / original.numel() * _STRETCH)
    row, part = divmod(int(relative.argmax()), relative.shape[1])
    sums.stretches.append(
        StretchError(
            name=name,
            row=row,
            column=part * _STRETCH,
            relative_rms=math.sqrt(float(relative[row, part])),
        )
    )


def _stretch_sums(
    decoded: torch.Tensor, original: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of squares of the error and of the source, in float64: one row of stretches a row."""
    import torch

    # A quantized bias is one row.
    rows = original.shape[0] if original.ndim > 1 else 1
    decoded, original = decoded.reshape(rows, -1), original.reshape(rows, -1)
    columns = original.shape[1]
    width = -(-columns // _STRETCH)
    error = torch.zeros(rows, width, dtype=torch.float64)
    norm = torch.zeros(rows, width, dtype=torch.float64)
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        source = original[part].to(torch.float32)
        difference = decoded[part].to(torch.float32) - source
        for sums, values in ((error, difference), (norm, source)):
            if columns % _STRETCH:
                values = torch.nn.functional.pad(values, (0, width * _STRETCH - columns))
            lengths = torch.linalg.vector_norm(values.view(-1, width, _STRETCH), dim=2)
            sums[part] = lengths.double().square()
    return error, norm


def _check_kept(
    name: str, decoded: torch.Tensor, original: torch.Tensor, dtype: str, sums: _Sums
) -> None:
    import torch

    sums.kept += 1
    expected = original.to(dtypes.torch_dtype(dtype)).contiguous().view(torch.uint8)
    if not torch.equal(decoded.contiguous().view(torch.uint8), expected):
        sums.problems.append(f"'{name}' is kept in {dtype} and differs from its source")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Comparing takes less than reading does; more threads would only wait for one another."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _relative(error: float, norm: float) -> float:
    if norm == 0:
        return 0.0 if error == 0 else 1.0
    return math.sqrt(error / norm)
