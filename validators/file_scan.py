"""Hashing a weight file, and looking for NaN and infinity in its numbers, in one reading."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.manifest import FileRecord
from fluxconv.converters.stored import StoredEntry
from fluxconv.converters.tensor_data import read_exactly

if TYPE_CHECKING:
    import torch

_PIECE = 1 << 22  # bytes: looked at while they are in the processor's cache
#: The least bits, the sign apart, of a float8 that is no number.
_NO_NUMBER = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7C}


def hash_and_scan(path: Path, tensors: Sequence[StoredEntry]) -> tuple[FileRecord, tuple[str, ...]]:
    """Size and sha256 of a file, and the names of its `tensors` that hold NaN or infinity.

    Looks at tensors of float types; what GGUF packs into blocks has to be decoded to be seen.
    Raises `MalformedFile` if the file ends before its tensors do.
    """
    import torch

    digest, size = hashlib.sha256(), path.stat().st_size
    memory = torch.empty(min(_PIECE, max(1, size)), dtype=torch.uint8)
    found: dict[str, None] = {}
    handle = os.open(path, os.O_RDONLY)
    try:
        for tensor, start, stop in _regions(tensors, size):
            for at in range(start, stop, _PIECE):
                piece = memory[: min(_PIECE, stop - at)]
                read_exactly(handle, piece.numpy().data, at, str(path))
                digest.update(piece.numpy().data)
                if tensor is not None and not _is_finite(piece, tensor.dtype):
                    found[tensor.name] = None
    finally:
        os.close(handle)
    return FileRecord(size=size, sha256=digest.hexdigest()), tuple(found)


def _regions(
    tensors: Sequence[StoredEntry], size: int
) -> Iterator[tuple[StoredEntry | None, int, int]]:
    """The whole file in order: its tensors of float types, and what lies between them."""
    at = 0
    for tensor in sorted(tensors, key=lambda each: each.offset):
        if tensor.dtype in dtypes.FLOATS or tensor.dtype in _NO_NUMBER:
            yield None, at, tensor.offset
            at = tensor.offset + tensor.nbytes
            yield tensor, tensor.offset, at
    yield None, at, size


def _is_finite(raw: torch.Tensor, dtype: str) -> bool:
    import torch

    if dtype in _NO_NUMBER:
        return int((raw & 0x7F).max()) < _NO_NUMBER[dtype]
    # One pass, and both NaN and infinity come out of it.
    least, most = torch.aminmax(raw.view(dtypes.torch_dtype(dtype)))
    return bool(torch.isfinite(least)) and bool(torch.isfinite(most))
