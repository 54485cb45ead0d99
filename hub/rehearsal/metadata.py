"""The metadata at the top of a README: reading it, checking it, the tags that follow from it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import yaml
from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import HubError

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)(?:^|\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
# YAML aliases can make a huge value out of a short text.
_MAX_VALUES = 50_000
_MAX_DEPTH = 32


class MetadataError(Exception):
    """The metadata cannot be used; the message says why."""


def read_metadata(readme: str) -> dict[str, Any] | None:
    """The metadata of a README as plain JSON values; None when there is none."""
    match = _FRONT_MATTER.match(readme)
    if match is None:
        return None
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 2}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise MetadataError(f"Invalid YAML metadata{where}: {problem}") from None
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"Invalid YAML metadata: {error}") from None
    if data is None:
        return None
    if not isinstance(data, dict):
        raise MetadataError("Invalid YAML metadata: it must be a mapping of names to values")
    budget = [_MAX_VALUES]
    plain: dict[str, Any] = _plain(data, budget, 0)
    return plain


def without_metadata(readme: str) -> str:
    """What stands below the metadata of a README."""
    return _FRONT_MATTER.sub("", readme, count=1)


def validate_yaml(call: Call) -> Response:
    """``POST /api/validate-yaml``: what the client asks before it pushes a card."""
    body = call.json()
    content = body.text("content", limit=1 << 20) or ""
    warnings = []
    try:
        if read_metadata(content) is None:
            warnings.append({"message": "empty or missing yaml metadata in repo card"})
    except MetadataError as error:
        problem = {"message": str(error)}
        return JSONResponse({"errors": [problem], "warnings": [], "error": str(error)}, 400)
    return JSONResponse({"errors": [], "warnings": warnings})


def check_readme(content: bytes) -> None:
    """Refuse a commit whose README has broken metadata, as the Hub does."""
    try:
        read_metadata(content.decode("utf-8", "replace"))
    except MetadataError as error:
        raise HubError(400, f"Invalid metadata in README.md: {error}") from None


def tags_of(card: dict[str, Any], paths: Iterable[str]) -> list[str]:
    """The tags that the Hub derives from a card and the file names."""
    tags = [str(card[key]) for key in ("library_name",) if card.get(key)]
    endings = {path.rpartition(".")[2] for path in paths}
    tags += [ending for ending in ("safetensors", "gguf") if ending in endings]
    tags += _texts(card.get("tags"))
    tags += [str(card[key]) for key in ("pipeline_tag",) if card.get(key)]
    tags += _texts(card.get("language"))
    bases = _texts(card.get("base_model"))
    tags += [f"base_model:{base}" for base in bases]
    if relation := card.get("base_model_relation"):
        tags += [f"base_model:{relation}:{base}" for base in bases]
    tags += [f"license:{name}" for name in _texts(card.get("license"))]
    return [*dict.fromkeys([*tags, "region:us"])]


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str) and item]


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_DEPTH:
        raise MetadataError("Invalid YAML metadata: it is too large")
    if isinstance(value, dict):
        return {_text(key): _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, budget, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _text(value)


def _text(value: Any) -> str:
    # Dates, sets, infinities and lone surrogates have no place in JSON.
    return str(value).encode("utf-8", "replace").decode("utf-8")
