"""The weights of a model, as its stored tensors give them: plain, or packed by any library."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fluxconv.converters import dtypes
from fluxconv.converters.packed_weights import (
    PACKINGS,
    Packed,
    Parts,
    Shape,
    Weight,
    json_inside,
    packed_as,
    shape_in,
    text_json,
    type_name,
    widened,
)
from fluxconv.converters.stored import StoredEntry
from fluxconv.converters.visible import visible

_GGUF_PLAIN = dtypes.FLOATS | {"I8", "I16", "I32", "I64"}


def weights_of(
    entries: Mapping[str, StoredEntry], metadata: Mapping[str, Any]
) -> tuple[Weight, ...]:
    """The weights that the stored tensors are, whatever packs them, in the order of their names.

    `metadata` is that of the headers. Of tensors, only the short JSON texts are read.
    """
    rest = dict(entries)
    found = [*_torchao(rest, metadata), *_by_sign(rest, metadata)]
    found += [_alone(entry) for entry in rest.values()]
    return tuple(sorted(found, key=lambda weight: weight.name))


def _by_sign(rest: dict[str, StoredEntry], metadata: Mapping[str, Any]) -> Iterator[Weight]:
    layers = text_json(metadata.get("_quantization_metadata")).get("layers")
    layers = layers if isinstance(layers, dict) else {}
    for packing in PACKINGS:
        sign = re.compile(packing.sign)
        for match in [match for match in map(sign.fullmatch, rest) if match]:
            name, module = match[0], match["of"]
            data = rest.get(f"{module}.{packing.data}")
            if data is None:
                continue
            beside = {
                end: rest[f"{module}.{end}"] for end in packing.beside if f"{module}.{end}" in rest
            }
            said = layers.get(module) or (
                json_inside(beside["comfy_quant"]) if "comfy_quant" in beside else {}
            )
            parts = Parts(data, rest[name], beside, said if isinstance(said, dict) else {})
            packed = packing.read(parts)
            if packed is not None:
                owned = {name, data.name, *(entry.name for entry in beside.values())}
                yield _weight(f"{module}.weight", packed, [rest.pop(each) for each in owned])


def _torchao(rest: dict[str, StoredEntry], metadata: Mapping[str, Any]) -> Iterator[Weight]:
    if "tensor_names" not in metadata:
        return
    for name, text in metadata.items():
        said = text_json(text) if "_tensor_data_names" in str(text) else {}
        ends, data = said.get("_tensor_data_names"), said.get("_data")
        module, _, leaf = name.rpartition(".")
        if not isinstance(ends, list) or not isinstance(data, dict):
            continue
        owned = {str(end): f"{module}._{leaf}_{end}" for end in ends}
        if "qdata" not in owned or not all(each in rest for each in owned.values()):
            continue
        codes, kind = rest[owned["qdata"]], visible(said.get("_type"))
        shape = _torchao_shape(codes, kind, data)
        block = data.get("block_size")
        packed = packed_as("torchao", kind, shape, settings=_blocks(block, shape))
        yield _weight(name, packed, [rest.pop(each) for each in owned.values()])


def _torchao_shape(codes: StoredEntry, kind: str, data: Mapping[str, Any]) -> Shape | None:
    if "shape" in data:
        shape = shape_in(data["shape"])
        # The types that say it have 4 bits; tiles are padded.
        return shape if shape is not None and math.prod(shape) <= 2 * codes.nbytes else None
    if codes.dtype not in ("I8", "U8", "F8_E4M3", "F8_E5M2"):
        return None
    is_four_bit = "nvfp4" in kind.lower() or "float4" in str(data.get("elem_dtype"))
    return widened(codes.shape, 2 if is_four_bit else 1)


def _blocks(block: Any, shape: Shape | None) -> dict[str, Any]:
    """What shares a scale, from torchao's `block_size`."""
    if not isinstance(block, list) or shape is None or len(block) != len(shape):
        return {}
    if tuple(block) == shape:
        return {"granularity": "tensor"}
    if block[-1] == shape[-1]:
        return {"granularity": "row"}
    return {"granularity": "group", "group_size": block[-1]}


def _alone(entry: StoredEntry) -> Weight:
    """A stored tensor that belongs to no other."""
    numel: int | None = math.prod(entry.shape)
    packed = None
    if entry.dtype in ("I64", "BOOL") or entry.name.endswith("scaled_fp8"):
        numel = 0  # a counter, a mask or a mark: no weight
    elif entry.is_gguf and entry.dtype not in _GGUF_PLAIN:
        packed = Packed("gguf", entry.dtype, entry.shape, numel)
    elif entry.dtype.startswith("F8"):
        packed = Packed("torch", type_name(entry.dtype), entry.shape, numel)
    elif entry.dtype not in dtypes.FLOATS:
        numel = None  # packed by somebody unknown
    return Weight(entry.name, entry.shape, numel, entry.nbytes, packed)


def _weight(name: str, packed: Packed, owned: list[StoredEntry]) -> Weight:
    return Weight(name, packed.shape, packed.numel, sum(each.nbytes for each in owned), packed)
