"""Weights to the bytes of a GGUF type, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.gguf.legacy import LEGACY
from fluxconv.converters.gguf.types import TYPES

if TYPE_CHECKING:
    import torch

#: Type -> the function that encodes its blocks.
ENCODERS = LEGACY
# Weights in work at once. On a CPU 2 MB in fp32, which stays in the cache through the dozen passes
# of an encoder; a GPU needs far more of them to be worth a launch.
_CHUNK = {"cpu": 1 << 19, "cuda": 1 << 25}


def encode(weight: torch.Tensor, type_name: str) -> torch.Tensor:
    """`weight` (rows, columns) as uint8 (rows, bytes of a row), on the same device.

    Any float type, all values finite; a row must be whole blocks of the type. Every block is
    encoded alone, in fp32. The bytes are those of gguf-py's `quants.quantize`.
    """
    import torch

    if type_name in dtypes.FLOATS:
        return weight.to(dtypes.torch_dtype(type_name)).contiguous().view(torch.uint8)
    kind, encoder = TYPES[type_name], ENCODERS[type_name]
    rows, columns = weight.shape
    blocks = weight.reshape(-1, kind.weights)
    encoded = weight.new_empty((len(blocks), kind.nbytes), dtype=torch.uint8)
    step = _CHUNK[weight.device.type] // kind.weights
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        encoded[part] = encoder(blocks[part].to(torch.float32))
    return encoded.view(rows, kind.row_bytes(columns))


def decode(blocks: torch.Tensor, type_name: str, columns: int) -> torch.Tensor:
    """Bytes of whole rows of `columns` weights, uint8 on the CPU in any shape, as fp32
    (rows, columns): by gguf-py, the judge of our encoders."""
    import torch
    from gguf import GGMLQuantizationType, quants

    rows = blocks.numpy().reshape(-1, TYPES[type_name].row_bytes(columns))
    return torch.from_numpy(quants.dequantize(rows, GGMLQuantizationType[type_name]))
