"""`fluxconv.json`: what a variant is, where it came from, and the hash of every file in it.

It is written last: a folder without it is not a variant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fluxconv.converters.errors import NotAVariant

MANIFEST_NAME = "fluxconv.json"
#: Who encoded: our own streaming, or the library with the whole model in memory.
Engine = Literal["stream", "library"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Strict):
    """One file: its size in bytes and its sha256 in lower-case hex."""

    size: int
    sha256: str


class SourceRecord(_Strict):
    """The checkpoint a variant was made from.

    `id` is a Hub repository or the checkpoint folder's name (never a path of the machine), `files`
    the weight and config files that were read, by path inside the checkpoint. `metadata` is the
    front matter of its README: the licence comes from there. `base` is the pipeline that the other
    parts come from, if another one, and `requantized` the backend of the source, if it was itself a
    variant.
    """

    id: str
    revision: str | None
    base: str | None = None
    requantized: str | None = None
    files: dict[str, FileRecord]
    metadata: dict[str, Any]


class KeptTensor(_Strict):
    """A tensor that stays in high precision, and why."""

    name: str
    dtype: str
    reason: str


class ComponentRecord(_Strict):
    """One quantized component: its weight files and what loads them."""

    files: list[str]
    loader: str
    bits_per_weight: float
    weight_bytes: int
    source_bytes: int
    quantized: int
    kept: list[KeptTensor]


class Manifest(_Strict):
    """The whole of `fluxconv.json`."""

    format_version: Literal[1] = 1
    name: str
    checkpoint: str
    backend: str
    options: dict[str, Any]
    source: SourceRecord
    versions: dict[str, str]
    device: str
    engine: Engine = "stream"
    bits_per_weight: float
    components: dict[str, ComponentRecord]
    files: dict[str, FileRecord]

    def to_json(self) -> str:
        """The text of the file; the same manifest always gives the same text."""
        return self.model_dump_json(indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the variant in `folder`; raises `NotAVariant` naming what is wrong."""
    file = folder / MANIFEST_NAME
    try:
        text = file.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NotAVariant(
            f"{folder}: is not a variant: it has no {MANIFEST_NAME}; make one with "
            "`fluxconv quantize`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise NotAVariant(f"{file}: cannot be read: {error}") from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotAVariant(f"{file}: {where or 'the file'}: {first['msg']}") from error
