"""A transformer or T5 encoder in anybody's GGUF file: its weights are decoded on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.converters.architectures import FLUX, T5_ENCODER, Architecture
from fluxconv.converters.architectures.recognition import PACKED, Part, Recognised, recognise
from fluxconv.converters.component import Component
from fluxconv.converters.dtypes import FLOATS
from fluxconv.converters.errors import NotACheckpoint
from fluxconv.converters.gguf.raw import raw_header
from fluxconv.converters.gguf.reader import GgufHeader, GgufTensor, read_gguf_header
from fluxconv.converters.gguf.statements import ARCHITECTURE, scheme
from fluxconv.converters.gguf.stored_types import UNDECODED, decode_stored
from fluxconv.converters.safetensors_header import TensorInfo
from fluxconv.converters.sources.foreign import seems_to_be
from fluxconv.converters.sources.gguf_t5 import T5_NAMES, t5_config
from fluxconv.converters.sources.matching import match
from fluxconv.converters.sources.single_file import BaseConfig, described, left_out
from fluxconv.converters.steps import Step
from fluxconv.converters.visible import visible, visible_path

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Found:
    """What a file holds: the tensors of `parts`, by name. `names` is how those begin that are of
    use, and `base` where the config is from, if not from the file."""

    architecture: Architecture
    layout: str
    config: Mapping[str, Any]
    parts: Mapping[str, tuple[Part, ...]]
    names: str | tuple[str, ...]
    base: BaseConfig | None


def open_gguf_file(
    file: Path, base: Callable[[str], BaseConfig | None], *, allowed: bool
) -> tuple[Component, tuple[str, ...], str | None]:
    """The component in `file`, what should be said about opening it, and how it is quantized, None
    if it is not.

    `base` gives the config of a pipeline's component by its name; without one, it is inferred from
    shapes and metadata. All weights become bf16. Raises `NotACheckpoint` saying what else the file
    seems to be, or that it is quantized and this is not `allowed`; `MalformedFile`.
    """
    header = read_gguf_header(file)
    shown = visible_path(file)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    flux = recognise(shapes)
    t5 = None if flux else t5_config(shapes, header.metadata)
    if flux is None and t5 is None:
        raise NotACheckpoint(f"{shown}: {seems_to_be(shapes, header.metadata.get(ARCHITECTURE))}")
    quantized = _quantized(header)
    if quantized and not allowed:
        raise NotACheckpoint(
            f"{shown}: is already quantized ({quantized}); give the checkpoint it was made from, "
            "or --allow-requantize to quantize what it holds once more"
        )
    if flux:
        found = _flux(flux, file, base(FLUX.component))
    else:
        found = _t5(t5 or {}, base(T5_ENCODER.component))
    _require_decodable(shown, (tensors[name] for name in found.parts if name in tensors))
    component = Component(
        found.architecture.component,
        file,
        found.config,
        found.architecture,
        (raw_header(header),),
        _steps(file, found, tensors),
        {file.name: file} | ({found.base.recorded: found.base.file} if found.base else {}),
    )
    others = [name for name in tensors if not name.startswith(found.names)]
    return component, left_out(file, others, found.architecture.title), quantized


def _flux(seen: Recognised, file: Path, base: BaseConfig | None) -> _Found:
    seen = described(file, seen, base)
    return _Found(FLUX, seen.layout.title, seen.config, seen.parts, seen.prefix, base)


def _t5(inferred: Mapping[str, Any], base: BaseConfig | None) -> _Found:
    config = base.values if base else inferred
    try:
        parts = PACKED.parts(T5_ENCODER.specs(config))
    except (KeyError, TypeError, ValueError) as error:
        raise NotACheckpoint(f"{base and base.file}: lacks or garbles {error}") from error
    return _Found(T5_ENCODER, "llama.cpp's names", config, parts, T5_NAMES, base)


def _quantized(header: GgufHeader) -> str | None:
    """How, in a few words; None if all is plain."""
    nbytes: Counter[str] = Counter()
    for tensor in header.tensors:
        nbytes[tensor.type_name] += tensor.nbytes
    return None if set(nbytes) <= FLOATS else f"GGUF {scheme(header.metadata, nbytes)}"


def _require_decodable(shown: str, tensors: Iterable[GgufTensor]) -> None:
    for tensor in tensors:
        if tensor.type_name in UNDECODED:
            raise NotACheckpoint(
                f"{shown}: '{visible(tensor.name)}' is {tensor.type_name}, which gguf-py cannot "
                "decode; give the checkpoint it was made from"
            )


def _steps(file: Path, found: _Found, tensors: Mapping[str, GgufTensor]) -> tuple[Step, ...]:
    # Held against the architecture as what they are once decoded.
    decoded = {
        t.name: TensorInfo(t.name, "BF16", t.shape, file, t.offset, t.nbytes)
        for t in tensors.values()
    }
    title = f"{found.architecture.title} under {found.layout}"
    others = [name for name in tensors if not name.startswith(found.names)]
    steps = match(file, title, decoded, found.parts, ignored=others)
    return tuple(_decoding(step, tensors) for step in steps)


def _decoding(step: Step, tensors: Mapping[str, GgufTensor]) -> Step:
    """The same step from the raw bytes of its tensors."""

    def assemble(stored: Mapping[str, torch.Tensor]) -> Iterable[tuple[str, torch.Tensor]]:
        return step.assemble(
            {
                name: decode_stored(raw, tensors[name].type_name, tensors[name].shape)
                for name, raw in stored.items()
            }
        )

    return replace(step, assemble=assemble)


def component_in(file: Path) -> str:
    """The component that `file` has, as far as names tell; raises `MalformedFile`."""
    header = read_gguf_header(file)
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    found = T5_ENCODER if t5_config(shapes, header.metadata) else FLUX
    return found.component
