"""Numbers, texts and arrays, read forward from a GGUF file; every length is checked before use.

Little-endian. A text is a u64 length and UTF-8 bytes; an array a u32 type, u64 count and its
elements; a value a u32 type and what it says (ggml, `docs/gguf.md`).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.visible import visible_path

#: Text that is kept, in bytes: a header's names, keys and values together. Real ones have 100 KB.
MAX_TEXT = 1 << 24
#: Texts in arrays, which take a step each: the largest vocabularies have some 300,000, and as many
#: merges.
MAX_ELEMENTS = 1 << 21
BUFFER = 1 << 18  # bytes read at once
UINT32, BOOL, TEXT, ARRAY = 4, 7, 8, 9
#: Type number -> struct format, for those of a fixed size.
_SCALARS = {
    **{0: "<B", 1: "<b", 2: "<H", 3: "<h", UINT32: "<I", 5: "<i", 6: "<f", BOOL: "<B"},
    **{10: "<Q", 11: "<q", 12: "<d"},
}


class Fault(Exception):
    """What is wrong with a file, without its name."""


@dataclass(frozen=True)
class GgufArray:
    """An array of the metadata, left in the file: `len` counts, iterating reads.

    `kind` is the type number of the elements, `offset` where they begin. Iterating raises
    `MalformedFile` for a text that is not UTF-8.
    """

    file: Path
    kind: int
    count: int
    offset: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        with self.file.open("rb", buffering=BUFFER) as stream:
            fields = Fields(self.file, stream, self.file.stat().st_size, self.offset)
            try:
                for _ in range(self.count):
                    yield fields.value(self.kind)
            except Fault as fault:
                raise MalformedFile(f"{visible_path(self.file)}: {fault}") from None


class Fields:
    """Reads from `at` on through a stream of `size` bytes."""

    def __init__(self, file: Path, stream: IO[bytes], size: int, at: int = 0) -> None:
        self._file = file
        self._stream = stream
        self._size = size
        self._text = self._elements = 0
        self.at = at
        stream.seek(at)

    @property
    def left(self) -> int:
        """Bytes from here to the end of the file."""
        return self._size - self.at

    def number(self, form: str) -> Any:
        """One number of a struct format."""
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def text(self, what: str, longest: int = MAX_TEXT) -> str:
        """One text, which a fault calls `what`."""
        length = self.number("<Q")
        if length > longest:
            raise Fault(f"has {what} of {length} bytes, and {longest} at most are read")
        self._text += length
        if self._text > MAX_TEXT:
            raise Fault("has more text in its metadata than any model; the file is garbled")
        try:
            return self._read(length).decode("utf-8")
        except UnicodeDecodeError:
            raise Fault(f"has {what} that is not UTF-8, before byte {self.at}") from None

    def value(self, kind: int) -> Any:
        """A value of the type `kind`; an array stays in the file."""
        if kind == TEXT:
            return self.text("a text")
        if kind == ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise Fault(f"has metadata of the unknown type {kind}")
        number = self.number(_SCALARS[kind])
        if kind != BOOL:
            return number
        if number > 1:
            raise Fault(f"has the truth value {number} where only 0 and 1 are ones")
        return bool(number)

    def _array(self) -> GgufArray:
        kind, count = self.number("<I"), self.number("<Q")
        array = GgufArray(self._file, kind, count, self.at)
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]))
        elif kind == TEXT:
            self._elements += count
            if self._elements > MAX_ELEMENTS or 8 * count > self.left:
                raise Fault(f"has an array of {count} texts; the file is garbled")
            for _ in range(count):
                self._skip(self.number("<Q"))
        else:
            what = "arrays" if kind == ARRAY else f"the unknown type {kind}"
            raise Fault(f"has an array of {what}")
        return array

    def _read(self, count: int) -> bytes:
        self._check(count)
        found = self._stream.read(count)
        if len(found) < count:
            raise Fault("became shorter while it was read")
        self.at += count
        return found

    def _skip(self, count: int) -> None:
        self._check(count)
        self._stream.seek(count, io.SEEK_CUR)
        self.at += count

    def _check(self, count: int) -> None:
        if count > self.left:
            raise Fault(
                f"truncated or garbled: its header asks for {count} bytes at byte {self.at} and "
                f"the file has {self._size}; download it again"
            )
