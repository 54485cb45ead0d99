"""The header of a GGUF file, checked before use: metadata and where every tensor lies.

Layout (ggml, `docs/gguf.md`), little-endian: `GGUF`, u32 version, u64 tensors, u64 key-value pairs;
each pair a text key and a value; each tensor a text name, u32 rank, u64 sizes (innermost first),
u32 type, u64 offset into the data, which begins at the next multiple of `general.alignment`.
"""

from __future__ import annotations

import itertools
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxconv.converters.errors import CheckpointNotFound, MalformedFile
from fluxconv.converters.gguf.fields import BUFFER, UINT32, Fault, Fields
from fluxconv.converters.gguf.stored_types import STORED_TYPES
from fluxconv.converters.visible import visible, visible_path

MAX_TENSORS = MAX_KEYS = 100_000  # FLUX.1-dev has 780 tensors, and no file a thousand keys
_MAX_RANK = 4  # GGML_MAX_DIMS
# GGML_MAX_NAME less its closing zero, as stable-diffusion.cpp has it; llama.cpp has 64 for 128, too
# few for the names of a whole pipeline.
_MAX_NAME = 127
_MAX_KEY = 65_535  # the format's own limit
_MAX_NUMBER = 2**63 - 1  # ggml's own sizes are signed
_ALIGNMENT, _DEFAULT_ALIGNMENT = "general.alignment", 32
_SMALLEST_PAIR, _SMALLEST_TENSOR = 8 + 1 + 4 + 1, 8 + 1 + 4 + 4 + 8  # bytes
#: How files begin that are mistaken for GGUF files, and what they are.
_MISTAKEN = (
    (b"PK", "a zip or pickle file, which can run code when opened"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file; get it with `git lfs pull`"),
    (b"<", "a web page; download the file again"),
    (b"lmgg", "a GGML file from before GGUF; convert it with an old llama.cpp"),
    (b"fmgg", "a GGML file from before GGUF; convert it with an old llama.cpp"),
    (b"tjgg", "a GGML file from before GGUF; convert it with an old llama.cpp"),
)


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
    """A checked header: the tensors in the order of their data, and the file's metadata, numbers,
    texts and `GgufArray`s."""

    file: Path
    size: int
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]


def read_gguf_header(file: Path) -> GgufHeader:
    """Read and check the header of `file`; no tensor data is read.

    Stricter than gguf-py: a tensor lies inside the file, aligned, and shares no
    byte with another; nothing is named twice; names can be printed. Time and memory are bounded,
    whatever the file claims. Raises `CheckpointNotFound` if there is no such file, `MalformedFile`
    naming what is wrong.
    """
    shown = visible_path(file)
    try:
        if "\0" in str(file):  # it may come from somebody's manifest
            raise FileNotFoundError
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would be to wait for its other end
            raise Fault("is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
        with file.open("rb", buffering=BUFFER) as stream:
            _check_beginning(stream.read(32), status.st_size)
            return _header(file, status.st_size, Fields(file, stream, status.st_size, at=8))
    except Fault as fault:
        raise MalformedFile(f"{shown}: {fault}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFound(f"{shown}: no such file") from None
    except OSError as error:
        raise MalformedFile(f"{shown}: cannot be read: {error.strerror}") from error


def _check_beginning(head: bytes, size: int) -> None:
    if not size:
        raise Fault("is empty; download it again")
    if head[:4] != b"GGUF":
        known = [what for start, what in _MISTAKEN if head.lstrip().startswith(start)]
        if head[8:10] == b'{"':
            known = ["a safetensors file; give it the ending .safetensors"]
        what = f" but {known[0]}" if known else "; download it again, or give one that is"
        raise Fault(f"is not a GGUF file{what}")
    if size < 24:
        raise Fault(f"{size} bytes are too few for a GGUF file; download it again")
    version = int.from_bytes(head[4:8], "little")
    if version and not version & 0xFFFF:
        raise Fault("is a big-endian GGUF file; convert it with `gguf-convert-endian`, of gguf-py")
    if version not in (2, 3):
        raise Fault(f"has GGUF version {version}; fluxconv reads 2 and 3")


def _header(file: Path, size: int, fields: Fields) -> GgufHeader:
    tensors, pairs = fields.number("<Q"), fields.number("<Q")
    if tensors * _SMALLEST_TENSOR + pairs * _SMALLEST_PAIR > fields.left:
        raise Fault(
            f"claims {tensors} tensors and {pairs} keys, and is too short for them; download it "
            "again"
        )
    if tensors > MAX_TENSORS or pairs > MAX_KEYS:
        raise Fault(f"claims {tensors} tensors and {pairs} keys, more than any model has")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key, kind = fields.text("a key", _MAX_KEY), fields.number("<I")
        if not key or key in metadata:
            raise Fault(f"names the key '{visible(key)}' twice" if key else "has a key of no name")
        if key == _ALIGNMENT and kind != UINT32:
            raise Fault(f"has {_ALIGNMENT} of the type {kind}, which has to be a number in 32 bits")
        metadata[key] = fields.value(kind)
    alignment = metadata.get(_ALIGNMENT, _DEFAULT_ALIGNMENT)
    if alignment < 1 or alignment & (alignment - 1):
        raise Fault(f"has the impossible alignment {alignment}")
    infos = [_info(fields, alignment) for _ in range(tensors)]
    start = fields.at + -fields.at % alignment
    return GgufHeader(file, size, metadata, _placed(infos, start, size))


def _info(fields: Fields, alignment: int) -> GgufTensor:
    """The next tensor, with its offset still into the data."""
    name, rank = fields.text("a tensor's name", _MAX_NAME), fields.number("<I")
    if not name or not name.isprintable():
        raise Fault(f"the name '{visible(name)}' of a tensor is empty or cannot be printed")
    tensor = f"tensor '{visible(name)}'"
    if rank > _MAX_RANK:
        raise Fault(f"{tensor} has {rank} dimensions, and {_MAX_RANK} at most are possible")
    sizes = [fields.number("<Q") for _ in range(rank)]
    number, offset = fields.number("<I"), fields.number("<Q")
    kind = STORED_TYPES.get(number)
    if kind is None:
        raise Fault(f"{tensor} has the type {number}, which is unknown or was given up")
    columns = sizes[0] if sizes else 1
    if columns % kind.weights:
        raise Fault(
            f"{tensor}: rows of {columns} are no blocks of {kind.weights}, as {kind.name} is"
        )
    # A size of zero hides no overflow from those who multiply in order.
    if math.prod(n for n in sizes if n) * kind.nbytes > _MAX_NUMBER:
        raise Fault(f"{tensor} has an impossible shape: more than 2**63 bytes")
    if offset % alignment:
        raise Fault(f"{tensor} lies at {offset}, which is no multiple of {alignment}")
    nbytes = math.prod(sizes) // kind.weights * kind.nbytes
    return GgufTensor(name, kind.name, tuple(reversed(sizes)), offset, nbytes)


def _placed(infos: list[GgufTensor], start: int, size: int) -> tuple[GgufTensor, ...]:
    """The tensors by their place in the file, in its order; they share no name and no byte."""
    names: set[str] = set()
    for info in infos:
        if info.name in names:
            raise Fault(f"names the tensor '{visible(info.name)}' twice")
        names.add(info.name)
    # Tensors without elements may lie at the place where the next one begins.
    ordered = sorted(infos, key=lambda info: (info.offset, info.nbytes))
    for before, after in itertools.pairwise(ordered):
        if before.offset + before.nbytes > after.offset:
            raise Fault(f"tensor '{visible(after.name)}' overlaps '{visible(before.name)}'")
    end = start + ordered[-1].offset + ordered[-1].nbytes if ordered else 0
    if end > size:
        raise Fault(
            f"truncated or garbled: its header describes {end} bytes and the file has {size}; "
            "download it again"
        )
    return tuple(
        GgufTensor(each.name, each.type_name, each.shape, start + each.offset, each.nbytes)
        for each in ordered
    )
