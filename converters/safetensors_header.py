"""The safetensors header: checked before use, and known in full before the first byte is written.

Layout (safetensors, `README.md` "Format"): 8 bytes little-endian header length N, N bytes of JSON
`{"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}` padded with
spaces, then the data. The library's writer orders tensors by descending dtype, in its own order
of them, then by name, and pads the header to a multiple of 8 bytes (`safetensors/src/tensor.rs`,
`prepare`); so every offset is fixed by names, dtypes and shapes alone.
"""

from __future__ import annotations

import json
import math
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxconv.converters import dtypes
from fluxconv.converters.errors import CheckpointNotFound, MalformedFile
from fluxconv.converters.layout import FileLayout, Placement, StoredTensor
from fluxconv.converters.visible import visible, visible_path

MAX_HEADER_BYTES = 100_000_000  # the library's own limit
# Every JSON value but the first follows a `{`, `[` or `,` of its own, and Python makes an object of
# each: a header of nothing but `{},` would take 30 times its size. A tensor has about 8 of these
# marks, so there is room for 125,000 (FLUX.1-dev has 780) or for much text in the metadata.
MAX_MARKS = 1_000_000
MAX_RANK = 8  # torch models use at most 5; more is a sign of garbage
# No number above this fits the signed 64-bit sizes of torch and numpy.
_MAX_NUMBER = 2**63 - 1


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


class _Fault(Exception):
    """What is wrong with a header, without the file's name."""


def read_header(file: Path) -> Header:
    """Read and check the header of `file`; no tensor data is read.

    Stricter than the library and never laxer: also names that repeat, unknown fields and names that
    cannot be printed are refused. Time and memory are bounded, whatever the file holds. Raises
    `CheckpointNotFound` if there is no such file, `MalformedFile` naming what is wrong.
    """
    shown = visible_path(file)
    try:
        size, raw = _read(file)
        entries = _parse(raw)
        metadata = _check_metadata(entries.pop("__metadata__", {}))
        data_start = 8 + len(raw)
        tensors = [_check_entry(file, *item, data_start) for item in entries.items()]
        # Tensors without elements may lie at the place where the next one begins.
        tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
        _check_places(tensors, data_start, size)
    except _Fault as fault:
        raise MalformedFile(f"{shown}: {fault}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFound(f"{shown}: no such file") from None
    except OSError as error:
        raise MalformedFile(f"{shown}: cannot be read: {error.strerror}") from error
    return Header(file, size, data_start, tuple(tensors), metadata)


def lay_out(
    file_name: str, tensors: Iterable[StoredTensor], metadata: Mapping[str, str]
) -> FileLayout:
    """The exact file that `safetensors.torch.save_file` writes for these tensors.

    (Except for the order of the metadata's keys, which the library leaves to a hash map.)
    """
    ordered = sorted(tensors, key=lambda t: (-dtypes.rank(t.dtype), t.name))
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


def _read(file: Path) -> tuple[int, bytes]:
    """The file's size and the bytes of its header."""
    if "\0" in str(file):  # it may come from somebody's index
        raise FileNotFoundError
    status = file.stat()
    # Opening a pipe would wait for somebody to write into it.
    if not stat.S_ISREG(status.st_mode):
        raise _Fault("is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
    size = status.st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise _Fault(f"{size} bytes is too short for a safetensors file")
        if prefix.startswith(b"GGUF"):
            raise _Fault("is not a safetensors file but a GGUF file; give it the ending .gguf")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise _Fault(
                f"not a safetensors file, or truncated: its header claims {length} bytes and the "
                f"file has {size}"
            )
        raw = stream.read(length)
    if len(raw) < length:
        raise _Fault("became shorter while it was read")
    return size, raw


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise _Fault("the header is not valid JSON: it does not begin with '{'")
    if sum(raw.count(mark) for mark in (b"{", b"[", b",")) > MAX_MARKS:
        raise _Fault("the header lists more than any model has; the file is garbled")
    try:
        # All three kinds of number are natural ones here, or wrong.
        entries: dict[str, Any] = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_int=_natural,
            parse_float=_natural,
            parse_constant=_natural,
        )
    except UnicodeDecodeError as error:
        raise _Fault(f"the header is not valid JSON: its byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise _Fault(f"the header is not valid JSON: {what} at character {error.pos}") from None
    except RecursionError:
        raise _Fault("the header is not valid: it is nested too deeply") from None
    return entries


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Fault(f"the header names '{visible(key)}' twice")
            seen.add(key)
    return found


def _natural(text: str) -> int:
    # The length first: Python reads a long number in quadratic time, or refuses with another error.
    if len(text) > 19 or not text.isdigit() or int(text) > _MAX_NUMBER:
        raise _Fault(
            f"the header holds '{visible(text, 40)}', and its numbers must be whole and below 2**63"
        )
    return int(text)


def _check_metadata(metadata: Any) -> Mapping[str, str]:
    if not isinstance(metadata, dict):
        raise _Fault("the metadata is no JSON object")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise _Fault(f"the metadata must map strings to strings, and '{visible(key)}' does not")
        try:
            key.encode(), value.encode()
        except UnicodeEncodeError:  # an escape for one half of a character
            raise _Fault(f"the metadata '{visible(key)}' is not valid text") from None
    return metadata


def _check_entry(file: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not name or not name.isprintable():
        raise _Fault(f"the name '{visible(name)}' of a tensor is empty or cannot be printed")
    tensor = f"tensor '{visible(name)}'"
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
            len(entry) == 3
        ):
            pass
        case _:
            raise _Fault(f"{tensor} has a malformed header entry")
    if not dtypes.known(dtype):
        raise _Fault(f"{tensor} has the unknown dtype '{visible(dtype, 40)}'")
    if len(shape) > MAX_RANK or not all(type(n) is int for n in shape):
        raise _Fault(f"{tensor} has an impossible shape")
    # A size of zero hides no overflow: the library multiplies in order, and so refuses some.
    if math.prod(n for n in shape if n) * dtypes.itemsize(dtype) > _MAX_NUMBER:
        raise _Fault(f"{tensor} has an impossible shape: more than 2**63 bytes")
    if not (type(begin) is int and type(end) is int and begin <= end):
        raise _Fault(f"{tensor} has impossible offsets")
    if math.prod(shape) * dtypes.itemsize(dtype) != end - begin:
        raise _Fault(f"{tensor}: its size does not match shape and dtype")
    return TensorInfo(name, dtype, tuple(shape), file, data_start + begin, end - begin)


def _check_places(tensors: list[TensorInfo], data_start: int, size: int) -> None:
    """The tensors, sorted by place, must fill the file from the header to its end."""
    expected = data_start
    for tensor in tensors:
        if tensor.offset != expected:
            kind = "overlaps" if tensor.offset < expected else "leaves a gap after"
            raise _Fault(f"tensor '{visible(tensor.name)}' {kind} the tensor before it")
        expected += tensor.nbytes
    if expected != size:
        raise _Fault(
            f"truncated or garbled: the header describes {expected} bytes and the file has {size}; "
            "download it again"
        )
