"""The bytes of a stored tensor, read and seen as what they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.safetensors_header import TensorInfo

if TYPE_CHECKING:
    import torch


def read_tensor(info: TensorInfo) -> torch.Tensor:
    """One tensor, in memory of its own."""
    import torch

    buffer = torch.empty(info.nbytes, dtype=torch.uint8)
    handle = os.open(info.file, os.O_RDONLY)
    try:
        read_exactly(handle, buffer.numpy().data, info.offset, str(info.file))
    finally:
        os.close(handle)
    return as_tensor(buffer, info.dtype, info.shape)


def as_tensor(raw: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The bytes `raw` (uint8, 1-D) seen as a tensor of the safetensors type `dtype`; no copy."""
    return raw.view(dtypes.torch_dtype(dtype)).view(shape)


def read_exactly(handle: int, into: memoryview, offset: int, what: str) -> None:
    """Fill `into` (bytes) from `offset`; `MalformedFile` if the file ends before."""
    while into.nbytes:
        count = os.preadv(handle, [into], offset)
        if count == 0:
            raise MalformedFile(f"{what}: ends at byte {offset}; it was truncated")
        into, offset = into[count:], offset + count
