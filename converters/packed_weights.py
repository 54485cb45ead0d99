"""How quantized weights lie in files, told from names, types and shapes: one row for each packing.

A row says which name gives a packed weight away, which tensor holds it, which others belong to it,
and how its shape follows. Sources: bitsandbytes, `functional.py` (`QuantState.as_dict`) and
`nn/modules.py`; optimum-quanto, `tensor/weights/`; torchao, `prototype/safetensors/`; diffusers,
`quantizers/quantization_config.py` (BFL, Nunchaku Lite); ComfyUI, `comfy/quant_ops.py` and
`comfy/utils.py` (`convert_old_quants`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fluxconv.converters.stored import StoredEntry
from fluxconv.converters.visible import visible

Shape = tuple[int, ...]
_TORCH_NAMES = {"I8": "int8", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_LONGEST_TEXT = 4096  # bytes of JSON in a tensor; real ones have 30 to 300


@dataclass(frozen=True)
class Packed:
    """How one weight is quantized: `scheme` in its library's words, and the settings that its
    tensors tell. `shape` is the model's, or None; `numel` may be known without it."""

    library: str
    scheme: str
    shape: Shape | None
    numel: int | None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Weight:
    """One weight of the model and all that is stored of it; `packed` is None for a plain one.

    `numel` counts the model's numbers, and is None where the file does not tell them.
    """

    name: str
    shape: Shape | None
    numel: int | None
    nbytes: int
    packed: Packed | None = None


@dataclass(frozen=True)
class Parts:
    """The tensors of one packed weight: the one that holds it, the one that gave it away, and
    those beside it by the end of their names; `said` is what the file says of the layer."""

    data: StoredEntry
    sign: StoredEntry
    beside: Mapping[str, StoredEntry]
    said: Mapping[str, Any]


@dataclass(frozen=True)
class Packing:
    """One row of the table. `sign` is a pattern of names whose group `of` is a module; the packed
    tensor is that plus `data`, and tensors that are it plus one of `beside` belong to it."""

    sign: str
    data: str
    beside: tuple[str, ...]
    read: Callable[[Parts], Packed | None]


# One reader a packing --------------------------------------------------------------------------


def _bitsandbytes_4bit(parts: Parts) -> Packed:
    state = json_inside(parts.sign)
    shape = shape_in(state.get("shape"))
    if shape is not None and (math.prod(shape) + 1) // 2 != parts.data.nbytes:
        shape = None
    settings = {
        "block_size": state.get("blocksize"),
        "double_quant": "nested_absmax" in parts.beside,
        "quantized_from": state.get("dtype"),
    }
    scheme = parts.sign.name.rsplit("__", 1)[1]
    return packed_as("bitsandbytes", scheme, shape, settings=settings)


def _bitsandbytes_8bit(parts: Parts) -> Packed:
    return packed_as("bitsandbytes", "int8", parts.data.shape)


def _quanto(parts: Parts) -> Packed | None:
    data, scale = parts.data, parts.beside.get("weight._scale")
    if scale is None or not data.shape:
        return None
    if "weight._shift" not in parts.beside:
        return packed_as("optimum-quanto", type_name(data.dtype), data.shape)
    # Rows of the grouped weight are packed one behind the other: 2 of 4 bits a byte, or 4 of 2.
    groups = math.prod(scale.shape)
    bits = [bits for bits in (4, 2) if -(-groups * bits // 8) == data.shape[0]]
    numel = groups * data.shape[-1] if bits and len(data.shape) == 2 else None
    scheme = f"int{bits[0]}" if bits else "packed"
    settings = {"group_size": data.shape[-1]}
    return Packed("optimum-quanto", scheme, None, numel, settings)


def _nunchaku(parts: Parts) -> Packed:
    # Two weights a byte, whatever integers hold them.
    four = "nvfp4" if parts.sign.dtype.startswith("F8") else "int4"
    low_rank = parts.beside.get("proj_down") or parts.beside.get("lora_down")
    if low_rank is None:
        return Packed("nunchaku", f"awq {four}", None, 2 * parts.data.nbytes)
    settings = {"rank": low_rank.shape[-1] if low_rank.shape else None}
    return Packed("nunchaku", f"svdquant {four}", None, 2 * parts.data.nbytes, settings)


#: ComfyUI's formats, and how many weights one stored element holds.
_COMFY_FORMATS = {
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8_tensorwise": 1,
    "mxfp8": 1,
    "nvfp4": 2,
    "asym_w4a8_int8": 2,
}


def _comfy(parts: Parts) -> Packed | None:
    if not parts.said and not parts.data.dtype.startswith("F8"):
        return None  # a scale beside a weight that was left as it is
    said = dict(parts.said)
    scheme = visible(said.pop("format", "") or type_name(parts.data.dtype))
    each = _COMFY_FORMATS.get(scheme)
    shape = None if each is None else widened(parts.data.shape, each)
    return packed_as("ComfyUI", scheme, shape, settings=said | _granularity(parts))


def _weight_scale_2(parts: Parts) -> Packed | None:
    if parts.said or parts.data.dtype != "U8":
        return _comfy(parts)
    shape = widened(parts.data.shape, 2)
    return packed_as("modelopt", "nvfp4", shape, settings={"group_size": 16})


def _weight_scale(parts: Parts) -> Packed | None:
    if parts.said or not parts.data.dtype.startswith("F8"):
        return _comfy(parts)
    shape = parts.data.shape
    if parts.sign.shape == shape[:1] and parts.sign.dtype == "F32":
        return packed_as("bfl", "fp8r", shape)
    return packed_as("torch", type_name(parts.data.dtype), shape, settings=_granularity(parts))


def _granularity(parts: Parts) -> dict[str, Any]:
    for end in ("weight_scale", "scale_weight"):
        if end in parts.beside:
            scales = math.prod(parts.beside[end].shape)
            rows = parts.data.shape[0] if parts.data.shape else 1
            return {"granularity": {1: "tensor", rows: "row"}.get(scales, "block")}
    return {}


_SCALES = (
    *("weight_scale", "weight_scale_2", "input_scale", "scale_weight", "scale_input"),
    *("comfy_quant", "pre_quant_scale", "weight_s_rel", "weight_s_channel", "weight_codebook"),
)
_NUNCHAKU = (
    *("wscales", "wzeros", "wcscales", "wtscale", "smooth", "smooth_orig", "smooth_factor"),
    *("smooth_factor_orig", "lora_down", "lora_up", "proj_down", "proj_up"),
)
_BNB_STATE = tuple(
    f"weight.{key}" for key in ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
)
_QUANTO = ("weight._scale", "weight._shift", "input_scale", "output_scale")

#: The first row whose sign and data are there has the tensors.
PACKINGS = (
    Packing(
        r"(?P<of>.+)\.weight\.quant_state\.bitsandbytes__(nf4|fp4)",
        "weight",
        _BNB_STATE,
        _bitsandbytes_4bit,
    ),
    Packing(r"(?P<of>.+)\.SCB", "weight", ("weight_format",), _bitsandbytes_8bit),
    Packing(r"(?P<of>.+)\.weight\._data", "weight._data", _QUANTO, _quanto),
    Packing(r"(?P<of>.+)\.weight\._data\._data", "weight._data._data", _QUANTO, _quanto),
    Packing(r"(?P<of>.+)\.wscales", "qweight", _NUNCHAKU, _nunchaku),
    Packing(r"(?P<of>.+)\.comfy_quant", "weight", _SCALES, _comfy),
    Packing(r"(?P<of>.+)\.scale_weight", "weight", _SCALES, _comfy),
    Packing(r"(?P<of>.+)\.weight_scale_2", "weight", _SCALES, _weight_scale_2),
    Packing(r"(?P<of>.+)\.weight_scale", "weight", _SCALES, _weight_scale),
)


# Pieces ----------------------------------------------------------------------------------------


def packed_as(
    library: str, scheme: str, shape: Shape | None, *, settings: Mapping[str, Any] | None = None
) -> Packed:
    """A packed weight whose number of elements follows from its `shape`."""
    numel = None if shape is None else math.prod(shape)
    known = {key: value for key, value in (settings or {}).items() if value is not None}
    return Packed(library, scheme, shape, numel, known)


def widened(shape: Shape, times: int) -> Shape:
    """The shape before `times` neighbours in a row were packed into one element."""
    return (*shape[:-1], shape[-1] * times) if shape else shape


def shape_in(found: Any) -> Shape | None:
    """A shape from a JSON text; None if it is none."""
    if not isinstance(found, list) or not all(type(n) is int and 0 <= n < 2**48 for n in found):
        return None
    return tuple(found)


def type_name(dtype: str) -> str:
    """torch's name of a type that holds one weight an element."""
    return _TORCH_NAMES.get(dtype, dtype)


def json_inside(entry: StoredEntry) -> dict[str, Any]:
    """The JSON object that a tensor of bytes holds; empty if it holds none."""
    if entry.dtype not in ("U8", "I8") or entry.nbytes > _LONGEST_TEXT:
        return {}
    with entry.file.open("rb") as stream:
        stream.seek(entry.offset)
        return text_json(stream.read(entry.nbytes))


def text_json(text: Any) -> dict[str, Any]:
    """The JSON object that a text holds; empty if it holds none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
