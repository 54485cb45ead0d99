"""Float8 weights with scales, as community files hold them.

A module `X` with float8 `X.weight` has its scale in `X.scale_weight`, with one marker tensor
`scaled_fp8` in the file (older), or in `X.weight_scale`, with a JSON text `X.comfy_quant` in uint8
(newer); the weight is the stored values times the scale. `X.scale_input` and `X.input_scale` are
about activations. Source: ComfyUI, `comfy/utils.py` (`convert_old_quants`), `comfy/ops.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluxconv.converters import dtypes
from fluxconv.converters.errors import MalformedFile, NotACheckpoint
from fluxconv.converters.safetensors_header import TensorInfo
from fluxconv.converters.tensor_data import read_tensor
from fluxconv.converters.visible import visible

_SCALES = ("scale_weight", "weight_scale")
_ASIDE = ("scale_input", "input_scale", "comfy_quant")
_MARKER = "scaled_fp8"
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
_LONGEST_FORMAT = 4096  # bytes; real ones have 30 to 70


@dataclass(frozen=True)
class Scales:
    """The scale of each scaled weight by stored name, and what else belongs to them."""

    of: Mapping[str, str]
    aside: frozenset[str]


def find_scales(tensors: Mapping[str, TensorInfo], prefix: str = "") -> Scales:
    """The scales among `tensors`, checked.

    Raises `NotACheckpoint` for a scale that is neither one number nor one a row, and for a format
    that this is not; `MalformedFile` for a format that cannot be read.
    """
    found: dict[str, str] = {}
    aside = {prefix + _MARKER} & tensors.keys()
    for name, info in tensors.items():
        module, _, kind = name.rpartition(".")
        weight = tensors.get(f"{module}.weight")
        if weight is None:
            continue
        if kind in _SCALES and weight.name not in found:
            _check_scale(info, weight)
            found[weight.name] = name
        elif kind in _ASIDE:
            aside.add(name)
            if kind == "comfy_quant":
                _check_format(info)
    return Scales(found, frozenset(aside))


def _check_scale(scale: TensorInfo, weight: TensorInfo) -> None:
    count = math.prod(scale.shape)
    per_row = scale.shape[:1] == weight.shape[:1] and count == weight.shape[0]
    if scale.dtype not in dtypes.FLOATS or not (count == 1 or per_row):
        raise NotACheckpoint(
            f"{scale.file}: '{visible(scale.name)}' is {scale.dtype} {list(scale.shape)}; fluxconv "
            "reads one float scale a tensor or a row; dequantize the file first, or give the "
            "checkpoint it was made from"
        )


def _check_format(info: TensorInfo) -> None:
    if info.dtype != "U8" or info.nbytes > _LONGEST_FORMAT:
        raise MalformedFile(f"{info.file}: '{visible(info.name)}' is no short text in uint8")
    try:
        found: Any = json.loads(bytes(read_tensor(info).tolist()))
    except (ValueError, RecursionError):
        raise MalformedFile(f"{info.file}: '{visible(info.name)}' is not valid JSON") from None
    name = found.get("format") if isinstance(found, dict) else None
    if name not in _FORMATS:
        raise NotACheckpoint(
            f"{info.file}: '{visible(info.name)}' has the format {visible(name)}; fluxconv reads "
            f"{' and '.join(_FORMATS)}; dequantize the file first, or give the checkpoint it was "
            "made from"
        )
