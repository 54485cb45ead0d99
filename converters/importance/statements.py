"""What an importance file says of itself: who measured what, on how much."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fluxconv.converters.gguf.statements import statements
from fluxconv.converters.importance.imatrix import SUMS
from fluxconv.converters.importance.own_file import FORMAT
from fluxconv.converters.visible import visible

_OURS = ("source", "revision", "prompts", "steps", "seed")


def importance_statements(
    metadata: Mapping[str, Any], names: Collection[str]
) -> tuple[str, dict[str, Any]] | None:
    """Who wrote the file, and what its header says, as JSON that can be printed; None where the
    header is no importance file's. `names` are those of its tensors."""
    if metadata.get("format") == FORMAT:
        said = {key: _plain(metadata[key]) for key in _OURS if metadata.get(key)}
        return "fluxconv", {"layers": len(names), **said}
    if metadata.get("general.type") == "imatrix":
        layers = sum(name.endswith(SUMS) for name in names)
        return "llama.cpp", {"layers": layers, **statements(metadata)}
    return None


def _plain(value: object) -> int | str:
    text = visible(value)  # all that a safetensors header holds is text
    return int(text) if text.isascii() and text.isdecimal() else text
