"""The stored tensors of a source held against those that its architecture asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from fluxconv.converters.architectures.recognition import Part, Shape
from fluxconv.converters.errors import NotACheckpoint
from fluxconv.converters.safetensors_header import TensorInfo
from fluxconv.converters.sources.foreign import how_quantized
from fluxconv.converters.sources.scales import find_scales
from fluxconv.converters.steps import Step, rows_step
from fluxconv.converters.visible import visible

_READ = ("BF16", "F16", "F32", "F8_E4M3", "F8_E5M2")


def match(
    where: Path,
    title: str,
    tensors: Mapping[str, TensorInfo],
    parts: Mapping[str, tuple[Part, ...]],
    *,
    ignored: Iterable[str] = (),
    prefix: str = "",
) -> tuple[Step, ...]:
    """The steps from `tensors` to the weights that `parts` asks for, by stored name.

    Every tensor but those `ignored` must be asked for, or belong to the scale of one that is.
    Raises `NotACheckpoint` naming what is missing, unexpected, or of another shape or type; `title`
    is what this should be.
    """
    scales = find_scales(tensors, prefix)
    known = {*parts, *ignored, *scales.of.values(), *scales.aside}
    missing = [name for name in parts if name not in tensors]
    unexpected = [name for name in tensors if name not in known]
    if missing or unexpected:
        quantized = how_quantized(tensors)
        if quantized:
            raise NotACheckpoint(f"{where}: {quantized}")
        raise NotACheckpoint(f"{where}: is no {title}: {_differences(missing, unexpected)}")
    for name, asked in parts.items():
        _check(where, tensors[name], asked)
    return tuple(
        rows_step(name, parts[name], scales.of.get(name)) for name in tensors if name in parts
    )


def _differences(missing: list[str], unexpected: list[str]) -> str:
    return " and ".join(
        f"{len(names)} {label} tensors, such as {', '.join(map(visible, names[:5]))}"
        for label, names in (("missing", missing), ("unexpected", unexpected))
        if names
    )


def _check(where: Path, tensor: TensorInfo, parts: tuple[Part, ...]) -> None:
    asked: Shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    if tensor.shape != asked:
        raise NotACheckpoint(
            f"{where}: '{tensor.name}' has shape {list(tensor.shape)} where the config asks for "
            f"{list(asked)}"
        )
    if tensor.dtype not in _READ:
        raise NotACheckpoint(
            f"{where}: '{tensor.name}' is {tensor.dtype}; fluxconv reads BF16, F16, F32 and "
            "float8; dequantize the file first, or give the checkpoint it was made from"
        )
