"""What a variant is called on the Hub, and where in its repository its files lie."""

from __future__ import annotations

import re

from fluxconv.converters.backends.gguf import Gguf
from fluxconv.converters.variant import Variant

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
#: Where cards point to, unless they are published elsewhere.
HUB = "https://huggingface.co"
#: The Hub's limit on a repository's name.
MAX_NAME = 96


def is_hub_id(text: str) -> bool:
    """Whether `text` can be `owner/name` on the Hub."""
    return bool(_HUB_ID.fullmatch(text)) and not re.search(r"--|\.\.|[.-](/|$)|\.git$", text)


def shares_repository(variant: Variant) -> bool:
    """Whether it shares its repository with the other GGUF variants of its checkpoint."""
    return variant.backend.container == "gguf"


def type_name(variant: Variant) -> str:
    """The GGML type of a GGUF variant (`Q8_0`), the backend's name of any other, each with the
    settings that are not the defaults."""
    backend = variant.backend
    return backend.file_label if isinstance(backend, Gguf) else backend.label


def repository_name(variant: Variant) -> str:
    """`<checkpoint>-GGUF` for a GGUF variant, its own name for any other, as the Hub allows it."""
    return repository_called(
        f"{variant.manifest.checkpoint}-GGUF" if shares_repository(variant) else variant.name
    )


def repository_called(name: str) -> str:
    """`name` as the Hub allows it for a repository."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    name = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", name))
    return name[-MAX_NAME:].strip("-._") or "flux"


def folder_in_repository(variant: Variant) -> str:
    """Where manifest, report and pictures lie: the root, or `fluxconv/<TYPE>/` when shared."""
    return f"fluxconv/{type_name(variant)}/" if shares_repository(variant) else ""
