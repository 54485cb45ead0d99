"""The safetensors header: checked before use, and known in full before the first byte is written.

Layout (safetensors, `README.md` "Format"): 8 bytes little-endian header length N, N bytes of JSON
`{"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}` padded with
spaces, then the data. The library's writer orders tensors by descending dtype width, then by name,
and pads the header to a multiple of 8 bytes (`safetensors/src/tensor.rs`, `prepare`); so every
offset is fixed by names, dtypes and shapes alone.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxconv.converters import dtypes
from fluxconv.converters.errors import CheckpointNotFound, MalformedFile
from fluxconv.converters.layout import FileLayout, Placement, StoredTensor

MAX_HEADER_BYTES = 100_000_000  # the library's own limit
MAX_RANK = 8  # torch models use at most 5; more is a sign of garbage


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies in one safetensors file; `offset` counts from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """A checked header: the tensors in the order of their data, and the file's metadata."""

    file: Path
    size: int
    data_start: int
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]


def read_header(file: Path) -> Header:
    """Read and check the header of `file`; no tensor data is read.

    Raises `CheckpointNotFound` if there is no such file, `MalformedFile` naming what is wrong.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            if len(prefix) < 8:
                raise MalformedFile(f"{file}: {size} bytes is too short for a safetensors file")
            (length,) = struct.unpack("<Q", prefix)
            if length > MAX_HEADER_BYTES or length > size - 8:
                raise MalformedFile(
                    f"{file}: not a safetensors file, or truncated: its header claims {length} "
                    f"bytes and the file has {size}"
                )
            raw = stream.read(length)
    except FileNotFoundError:
        raise CheckpointNotFound(f"{file}: no such file") from None
    except OSError as error:
        raise MalformedFile(f"{file}: cannot be read: {error.strerror}") from error
    entries = _parse(file, raw)
    metadata = _check_metadata(file, entries.pop("__metadata__", {}))
    data_start = 8 + length
    tensors = sorted(
        (_check_entry(file, name, entry, data_start) for name, entry in entries.items()),
        key=lambda tensor: (tensor.offset, tensor.nbytes),
    )
    expected = data_start
    for tensor in tensors:
        if tensor.offset != expected:
            kind = "overlaps" if tensor.offset < expected else "leaves a gap after"
            raise MalformedFile(f"{file}: tensor '{tensor.name}' {kind} the tensor before it")
        expected += tensor.nbytes
    if expected != size:
        raise MalformedFile(
            f"{file}: truncated or garbled: the header describes {expected} bytes and the file has "
            f"{size}; download it again"
        )
    return Header(file, size, data_start, tuple(tensors), metadata)


def lay_out(
    file_name: str, tensors: Iterable[StoredTensor], metadata: Mapping[str, str]
) -> FileLayout:
    """The exact file that `safetensors.torch.save_file` writes for these tensors.

    (Except for the order of the metadata's keys, which the library leaves to a hash map.)
    """
    ordered = sorted(tensors, key=lambda t: (-dtypes.itemsize(t.dtype), t.name))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for tensor in ordered:
        end = position + tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    placements = {
        tensor.name: Placement(len(header) + entries[tensor.name]["data_offsets"][0], tensor.nbytes)
        for tensor in ordered
    }
    return FileLayout(file_name, header, placements, len(header) + position)


def _parse(file: Path, raw: bytes) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise MalformedFile(f"{file}: the header names '{key}' twice")
            found[key] = value
        return found

    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=no_duplicates)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        raise MalformedFile(f"{file}: the header is not valid JSON; the file is garbled") from error
    if not isinstance(entries, dict):
        raise MalformedFile(f"{file}: the header is not a JSON object")
    return entries


def _check_metadata(file: Path, metadata: Any) -> Mapping[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise MalformedFile(f"{file}: the header's metadata must map strings to strings")
    return metadata


def _check_entry(file: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
            len(entry) == 3
        ):
            pass
        case _:
            raise MalformedFile(f"{file}: tensor '{name}' has a malformed header entry")
    if not dtypes.known(dtype):
        raise MalformedFile(f"{file}: tensor '{name}' has the unknown dtype '{dtype[:40]}'")
    if len(shape) > MAX_RANK or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise MalformedFile(f"{file}: tensor '{name}' has an impossible shape")
    if not (type(begin) is int and type(end) is int and 0 <= begin <= end):
        raise MalformedFile(f"{file}: tensor '{name}' has impossible offsets")
    if math.prod(shape) * dtypes.itemsize(dtype) != end - begin:
        raise MalformedFile(f"{file}: tensor '{name}': its size does not match shape and dtype")
    return TensorInfo(name, dtype, tuple(shape), file, data_start + begin, end - begin)
