"""The front matter of a card: what fluxconv puts there, and the Hub's rules for it, offline.

Rules from the Hub's documentation: "Model cards", "Licenses" and the specification
`modelcard.md` of huggingface/hub-docs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fluxconv.cards.licences import Licence
from fluxconv.cards.naming import is_hub_id, shares_repository
from fluxconv.converters.variant import Variant

_VOCABULARY: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parent / "vocabulary.yaml").read_text("utf-8")
)
_SLUG = re.compile(r"[a-z0-9][a-z0-9.+_-]*")
_LINK = re.compile(r"https?://[^\s<>\"]+|LICENSE(\.md|\.txt)?")
_TAG = re.compile(r"[^\s,:<>\"']([^\n,<>\"']{0,98}[^\s,<>\"'])?")


@dataclass(frozen=True)
class Rule:
    """One rule: the value of `key`, where there is one, must pass `holds`."""

    key: str
    holds: Callable[[Any, Mapping[str, Any]], bool]
    text: str


def _one_or_more(check: Callable[[str], object]) -> Callable[[Any, Mapping[str, Any]], bool]:
    def holds(value: Any, metadata: Mapping[str, Any]) -> bool:
        values = value if isinstance(value, list) else [value]
        return bool(values) and all(isinstance(v, str) and bool(check(v)) for v in values)

    return holds


def _known(key: str, value: Any) -> bool:
    return value in _VOCABULARY[key]


RULES = (
    Rule(
        "license", _one_or_more(_VOCABULARY["license"].__contains__), "is no identifier of the Hub"
    ),
    Rule("license", lambda v, m: v != "other" or "license_name" in m, "other needs license_name"),
    Rule("license_name", lambda v, m: m.get("license") == "other", "is for license: other only"),
    Rule("license_name", _one_or_more(_SLUG.fullmatch), "must be lower case without spaces"),
    Rule("license_name", lambda v, m: "license_link" in m, "needs license_link"),
    Rule("license_link", _one_or_more(_LINK.fullmatch), "must be an address or a LICENSE file"),
    Rule("base_model", _one_or_more(is_hub_id), "must be owner/name, or a list of them"),
    Rule(
        "base_model_relation",
        lambda v, m: _known("base_model_relation", v),
        "is no relation it knows",
    ),
    Rule("base_model_relation", lambda v, m: "base_model" in m, "needs base_model"),
    Rule("library_name", _one_or_more(_SLUG.fullmatch), "must be lower case without spaces"),
    Rule("pipeline_tag", lambda v, m: _known("pipeline_tag", v), "is no task it knows"),
    Rule("tags", lambda v, m: isinstance(v, list), "must be a list"),
    Rule("tags", _one_or_more(_TAG.fullmatch), "must be short words"),
)
REQUIRED = ("license", "library_name", "pipeline_tag", "tags")
#: Keys that fluxconv decides; a hand-written value of these is replaced or dropped.
OWNED = ("license", "license_name", "license_link", "library_name", "pipeline_tag")


def metadata_problems(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What the Hub would not accept in this front matter, one sentence each."""
    missing = [f"{key}: is missing" for key in REQUIRED if key not in metadata]
    broken = [
        f"{rule.key}: {rule.text}"
        for rule in RULES
        if rule.key in metadata and not _holds(rule, metadata)
    ]
    return (*missing, *broken)


def card_metadata(variants: Sequence[Variant], licence: Licence) -> dict[str, Any]:
    """The front matter of the card that these variants share (or that the only one has)."""
    first = variants[0]
    source = first.manifest.source.id
    is_gguf = shares_repository(first)
    base = {"base_model": source, "base_model_relation": "quantized"} if is_hub_id(source) else {}
    libraries = ["gguf"] if is_gguf else [first.backend.requirement.package]
    names = [variant.backend.name for variant in variants]
    return {
        **base,
        **licence.metadata,
        "library_name": "gguf" if is_gguf else "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": list(dict.fromkeys(["flux", "quantization", *libraries, *names, "fluxconv"])),
    }


def _holds(rule: Rule, metadata: Mapping[str, Any]) -> bool:
    try:
        return rule.holds(metadata[rule.key], metadata)
    except TypeError:  # an unhashable value where a word belongs
        return False
