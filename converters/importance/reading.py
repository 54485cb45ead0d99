"""Reading importance, whoever wrote it: fluxconv, or llama.cpp in either of its formats."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.errors import CheckpointNotFound, MalformedFile
from fluxconv.converters.importance.imatrix import read_imatrix
from fluxconv.converters.importance.legacy_imatrix import read_legacy_imatrix
from fluxconv.converters.importance.own_file import own_metadata, read_own
from fluxconv.converters.visible import visible, visible_path

if TYPE_CHECKING:
    import torch


def read_importance(path: Path) -> Mapping[str, torch.Tensor]:
    """The mean square of each input channel of every layer in `path`: fp32 (columns,) by the
    layer's name, which is its weight's without `.weight`.

    What kind of file it is, its first bytes tell. Names are the writer's own: those of the source
    in fluxconv's files, those of the GGUF tensors in llama.cpp's. (There, of a layer of several
    experts, the vectors one behind the other.) Raises `CheckpointNotFound` if there is no such
    file, `MalformedFile` if it breaks its format or holds anything but finite numbers from zero up.
    """
    first = _first_bytes(path)
    if first[:4] == b"GGUF":
        found = read_imatrix(path)
    elif _is_safetensors(first):
        found = read_own(path)
    else:
        found = read_legacy_imatrix(path)
    vectors: dict[str, torch.Tensor] = {}
    for full, vector in found:
        name = full.removesuffix(".weight")
        if name in vectors:
            raise MalformedFile(f"{visible_path(path)}: has '{visible(name)}' twice")
        _check(path, name, vector)
        vectors[name] = vector
    if not vectors:
        raise MalformedFile(f"{visible_path(path)}: holds the importance of no layer")
    return vectors


def importance_digest(path: Path) -> str:
    """The sha256 of the file `path`, in hexadecimal; raises what `read_importance` does of a file
    that cannot be read."""
    _first_bytes(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def importance_source(path: Path) -> str | None:
    """The checkpoint that the importance file `path` was measured on, a Hub repository or a
    folder's name; None in llama.cpp's, which do not say. Raises what `read_importance` does."""
    return own_metadata(path).get("source") if _is_safetensors(_first_bytes(path)) else None


def _is_safetensors(first: bytes) -> bool:
    return first[8:] == b"{"  # its header, behind the header's length


def _first_bytes(path: Path) -> bytes:
    shown = visible_path(path)
    try:
        # Opening a pipe would wait for somebody to write into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise MalformedFile(f"{shown}: is not a regular file")
        with path.open("rb") as stream:
            return stream.read(9)
    except (FileNotFoundError, NotADirectoryError):
        message = f"{shown}: no such file; `fluxconv importance` makes one"
        raise CheckpointNotFound(message) from None
    except OSError as error:
        raise MalformedFile(f"{shown}: cannot be read: {error.strerror}") from error


def _check(path: Path, name: str, vector: torch.Tensor) -> None:
    import torch

    if not name or not name.isprintable():
        raise MalformedFile(f"{visible_path(path)}: has the impossible name '{visible(name)}'")
    layer = f"{visible_path(path)}: the importance of '{visible(name)}'"
    if vector.ndim != 1 or not len(vector):
        raise MalformedFile(f"{layer} must have one dimension, and has {tuple(vector.shape)}")
    # NaN fails this comparison, too.
    if not bool(((vector >= 0) & torch.isfinite(vector)).all()):
        raise MalformedFile(f"{layer} holds NaN, infinity or a negative number; make it again")
