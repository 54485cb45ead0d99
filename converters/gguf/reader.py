"""The header of a GGUF file, checked before use: metadata and where every tensor lies.

Layout (ggml, `docs/gguf.md`), little-endian: `GGUF`, u32 version, u64 tensors, u64 key-value pairs;
each pair a string key, u32 type and value; each tensor a string name, u32 rank, u64 sizes
(innermost first), u32 type, u64 offset into the data, which begins at the next multiple of
`general.alignment`. A string is a u64 length and UTF-8 bytes; an array a u32 type, u64 count and
its elements.
"""

from __future__ import annotations

import itertools
import math
import mmap
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxconv.converters.errors import CheckpointNotFound, MalformedFile

_MAX_RANK = 4  # GGML_MAX_DIMS
_MAX_NAME = 64  # GGML_MAX_NAME, its closing zero included
_MAX_KEY = 65_535  # the format's own limit
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
#: Type number -> struct format, for those of a fixed size.
_SCALARS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"},
    **{10: "Q", 11: "q", 12: "d"},
}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor; `shape` is outermost first, as torch has it; `offset` from the file's start."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GgufHeader:
    """`metadata` has strings and numbers; of an array, its number of elements."""

    file: Path
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]


def read_gguf_header(file: Path) -> GgufHeader:
    """Read and check the header of `file`; no tensor data is read.

    Raises `CheckpointNotFound` if there is no such file, `MalformedFile` naming what is wrong.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would be to wait for its other end
            raise MalformedFile(f"{file}: is not a regular file")
        with file.open("rb") as stream:
            if status.st_size < 24:
                raise MalformedFile(f"{file}: too short for a GGUF file")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Parser(file, data).header()
    except FileNotFoundError:
        raise CheckpointNotFound(f"{file}: no such file") from None
    except OSError as error:
        raise MalformedFile(f"{file}: cannot be read: {error.strerror}") from error


class _Parser:
    """Reads forward through the file; every length is held against what is left of it."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self._file = file
        self._data = data
        self._at = 0

    def header(self) -> GgufHeader:
        if self._data[:4] != b"GGUF":
            raise self._bad("is not a GGUF file")
        self._at = 4
        version, tensors, pairs = self._read("I"), self._read("Q"), self._read("Q")
        if version not in (2, 3):
            raise self._bad(f"has GGUF version {version}; 2 and 3 are read")
        # The smallest pair and the smallest tensor take more than 12 bytes each.
        if (tensors + pairs) * 12 > len(self._data):
            raise self._bad("claims more entries than it has room for")
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._string(_MAX_KEY)
            if key in metadata:
                raise self._bad(f"names the key '{key}' twice")
            metadata[key] = self._value(self._read("I"))
        infos = [self._info() for _ in range(tensors)]
        return GgufHeader(self._file, metadata, self._place(infos, metadata))

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, rank = self._string(_MAX_NAME), self._read("I")
        if rank > _MAX_RANK:
            raise self._bad(f"'{name}' has {rank} dimensions")
        sizes = tuple(self._read("Q") for _ in range(rank))
        return name, sizes, self._read("I"), self._read("Q")

    def _place(
        self, infos: list[tuple[str, tuple[int, ...], int, int]], metadata: Mapping[str, Any]
    ) -> tuple[GgufTensor, ...]:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self._bad(f"has the impossible alignment {alignment}")
        start = self._at + -self._at % alignment
        found: dict[str, GgufTensor] = {}
        for name, sizes, number, offset in infos:
            try:
                kind = GGMLQuantizationType(number)
            except ValueError:
                raise self._bad(f"'{name}' has the unknown type {number}") from None
            per_block, block_bytes = GGML_QUANT_SIZES[kind]
            if sizes and sizes[0] % per_block:
                raise self._bad(f"'{name}': rows of {sizes[0]} are no blocks of {per_block}")
            nbytes = math.prod(sizes) // per_block * block_bytes
            if offset % alignment or start + offset + nbytes > len(self._data):
                raise self._bad(f"truncated, or '{name}' lies at an impossible place")
            if name in found:
                raise self._bad(f"names the tensor '{name}' twice")
            shape = tuple(reversed(sizes))
            found[name] = GgufTensor(name, kind.name, shape, start + offset, nbytes)
        ordered = sorted(found.values(), key=lambda tensor: tensor.offset)
        for before, after in itertools.pairwise(ordered):
            if before.offset + before.nbytes > after.offset:
                raise self._bad(f"'{after.name}' overlaps '{before.name}'")
        return tuple(ordered)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string(len(self._data))
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise self._bad(f"has metadata of the unknown type {kind}")
        return self._read(_SCALARS[kind])

    def _array(self) -> int:
        kind, count = self._read("I"), self._read("Q")
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING and count * 8 <= len(self._data):
            for _ in range(count):
                self._skip(self._read("Q"))
        else:
            raise self._bad("has an array of an impossible type or length")
        return int(count)

    def _string(self, longest: int) -> str:
        length = self._read("Q")
        if length > longest:
            raise self._bad(f"has a name or text of {length} bytes")
        start = self._at
        self._skip(length)
        try:
            return self._data[start : self._at].decode("utf-8")
        except UnicodeDecodeError:
            raise self._bad("has a text that is not UTF-8") from None

    def _read(self, form: str) -> Any:
        start = self._at
        self._skip(struct.calcsize(form))
        return struct.unpack("<" + form, self._data[start : self._at])[0]

    def _skip(self, count: int) -> None:
        if count > len(self._data) - self._at:
            raise self._bad(f"ends inside its header, at byte {len(self._data)}; it was truncated")
        self._at += count

    def _bad(self, what: str) -> MalformedFile:
        return MalformedFile(f"{self._file}: {what}")
