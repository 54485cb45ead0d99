"""llama.cpp's importance matrix in its older form, a bare binary file (`imatrix.dat`).

Format (llama.cpp, `common/imatrix-loader.cpp`, `common_imatrix_load_legacy`), little-endian: i32
entries; each an i32 length and the weight's name, i32 calls, i32 columns, and for each column an
f32, its mean square times the calls. What follows, the number of chunks and the data set's name,
may be missing and is not read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.visible import visible_path

if TYPE_CHECKING:
    import torch

# Nothing in the file says what it is, so any file may come in: what no imatrix has is refused
# before it is read.
_MAX_ENTRIES = 1 << 20
_MAX_NAME = 1 << 10
_MAX_COLUMNS = 1 << 26


class _Fault(Exception):
    """Something that no imatrix has."""


def read_legacy_imatrix(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of `file` and their mean squares, fp32 (columns,), in its order.

    Raises `MalformedFile` if it is none; entries before the fault have been given by then.
    """
    try:
        with file.open("rb") as stream:
            for _ in range(_number(stream, _MAX_ENTRIES)):
                yield _entry(stream)
    except _Fault:
        raise MalformedFile(
            f"{visible_path(file)}: is no importance file, neither fluxconv's nor an imatrix of "
            "llama.cpp, or it was truncated"
        ) from None
    except OSError as error:
        raise MalformedFile(f"{visible_path(file)}: cannot be read: {error.strerror}") from error


def _entry(stream: IO[bytes]) -> tuple[str, torch.Tensor]:
    import torch

    try:
        name = _take(stream, _number(stream, _MAX_NAME)).decode("utf-8")
    except UnicodeDecodeError:
        raise _Fault from None
    (calls,) = struct.unpack("<i", _take(stream, 4))
    columns = _number(stream, _MAX_COLUMNS)
    raw = bytearray(_take(stream, 4 * columns))
    # As llama.cpp: without calls, they are means already.
    return name, torch.frombuffer(raw, dtype=torch.float32) / max(calls, 1)


def _number(stream: IO[bytes], most: int) -> int:
    (found,) = struct.unpack("<i", _take(stream, 4))
    if not 1 <= found <= most:
        raise _Fault
    return int(found)


def _take(stream: IO[bytes], count: int) -> bytes:
    taken = stream.read(count)
    if len(taken) < count:
        raise _Fault
    return taken
