"""What a GGUF file says of itself, and what others take it for.

Keys: gguf-py, `constants.py`; ggml, `docs/gguf.md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from fluxconv.converters.architectures.families import FAMILIES
from fluxconv.converters.gguf.fields import GgufArray
from fluxconv.converters.gguf.stored_types import STORED_TYPES
from fluxconv.converters.visible import visible

FILE_TYPE, ARCHITECTURE = "general.file_type", "general.architecture"
#: Keys worth saying, and what they are called.
_SAID = {
    ARCHITECTURE: "architecture",
    "general.name": "name",
    "general.quantization_version": "quantization_version",
    "general.version": "version",
    "general.author": "author",
    "general.organization": "organization",
    "general.quantized_by": "quantized_by",
    "general.license": "license",
    "general.license.name": "license_name",
    "general.source.url": "source",
    "general.source.repo_url": "source",
    "general.source.huggingface.repository": "source",
    "general.base_model.0.name": "base_model",
    "general.base_model.0.repo_url": "base_model_url",
    "general.base_model.0.version": "base_model_version",
    "general.tags": "tags",
    "general.datasets": "datasets",
    "quantize.imatrix.file": "importance",
    "imatrix.datasets": "datasets",
    "imatrix.chunk_count": "chunks",
    "imatrix.chunk_size": "chunk_size",
}
_LISTED = 5  # elements of an array that are said
_TOKENIZER, _TOKENS = "tokenizer.ggml.model", "tokenizer.ggml.tokens"
#: The families that diffusers tells apart by the channels of the input projection, those with
#: guidance alone; what is neither is dev.
_BY_CHANNELS = {family.in_channels: family for family in FAMILIES if family.guidance}
_DEFAULT = _BY_CHANNELS[64]
#: Types in which diffusers sees numbers; of the others it sees bytes.
_SEEN_AS_NUMBERS = ("F32", "F16")
_BLOCKS = {kind.name: kind for kind in STORED_TYPES.values()}


def statements(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata says on the model, its makers and its tokenizer, as JSON that can be
    printed."""
    found = {name: _plain(metadata[key]) for key, name in _SAID.items() if key in metadata}
    if _TOKENIZER in metadata:
        tokens = metadata.get(_TOKENS)
        count = f", {len(tokens):,} tokens" if isinstance(tokens, GgufArray) else ""
        found["tokenizer"] = f"{visible(metadata[_TOKENIZER])}{count}"
    return found


def scheme(metadata: Mapping[str, Any], nbytes: Mapping[str, int]) -> str:
    """The field's name for such a file, as its metadata has it; else the types of its quantized
    tensors, of which `nbytes` counts the bytes, or of all, those with the most bytes first."""
    number = metadata.get(FILE_TYPE)
    if isinstance(number, int):
        return file_type(number)
    packed = {name: count for name, count in nbytes.items() if _BLOCKS[name].weights > 1}
    return " + ".join(name for name, _ in Counter(packed or nbytes).most_common())


def file_type(number: int) -> str:
    """gguf-py's name of a `general.file_type`."""
    from gguf import LlamaFileType

    known: dict[int, str] = {
        kind.value: kind.name.removeprefix("MOSTLY_") for kind in LlamaFileType
    }
    return known.get(number, f"file type {number}")


def contradiction(metadata: Mapping[str, Any], types: Iterable[str]) -> str | None:
    """A note on a file that says it is of a type that no tensor has; None if all is well."""
    number = metadata.get(FILE_TYPE)
    if not isinstance(number, int):
        return None
    said = file_type(number)
    named = [name for name in _BLOCKS if said.removeprefix("ALL_") in (name, *_sizes(name))]
    present = list(types)
    if not named or named[0] in present:
        return None
    return f"its metadata says {said}, and none of its tensors is {named[0]}"


def mistaken_family(type_name: str, columns: int) -> str | None:
    """A note on a Flux transformer with guidance whose input projection, of `columns` channels in
    this type, makes diffusers take it for another family; None if it is taken for what it is.

    diffusers (`infer_diffusers_model_type`) looks at the width of the array that gguf-py gives,
    which is bytes for every type but a few.
    """
    seen = columns if type_name in _SEEN_AS_NUMBERS else _BLOCKS[type_name].row_bytes(columns)
    taken, true = (_BY_CHANNELS.get(width, _DEFAULT) for width in (seen, columns))
    if taken is true:
        return None
    return (
        f"diffusers would load it as {taken.title}: it takes the {seen} bytes of a row of "
        f"img_in.weight, which is {type_name}, for channels"
    )


def _sizes(name: str) -> list[str]:
    return [f"{name}_{size}" for size in ("S", "M", "L")]


def _plain(value: Any) -> Any:
    if isinstance(value, GgufArray):
        some = [_plain(item) for item in islice(value, _LISTED)]
        return [*some, "..."] if len(value) > _LISTED else some
    return value if isinstance(value, bool | int) else visible(value)
