"""The Hub's rules for the front matter of a card, as a table that needs no network.

Where the Hub is at hand, `validate-yaml` has the last word (`fluxconv.hub.card_check`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fluxconv.cards.naming import is_hub_id
from fluxconv.converters.variant import is_safe_path

_VOCABULARY: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parent / "vocabulary.yaml").read_text("utf-8")
)
# Where each rule is written down.
_CARDS = "https://huggingface.co/docs/hub/model-cards"
_LICENCES = "https://huggingface.co/docs/hub/repositories-licenses"
_SPEC = "https://github.com/huggingface/hub-docs/blob/main/modelcard.md"
_GALLERY = "https://huggingface.co/docs/hub/model-cards-components"
_GATED = "https://huggingface.co/docs/hub/models-gated"

_SLUG = re.compile(r"[a-z0-9][a-z0-9.+_-]*")
_ADDRESS = re.compile(r"https?://[^\s<>\"]+")
_LINK = re.compile(rf"{_ADDRESS.pattern}|LICENSE(\.md|\.txt)?")
_TAG = re.compile(r"[^\s,:<>\"']([^\n,<>\"']{0,98}[^\s,<>\"'])?")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?|multilingual|code")
_PICTURE = re.compile(r".+\.(png|jpe?g|webp|gif|mp4|webm)", re.IGNORECASE)


@dataclass(frozen=True)
class Rule:
    """One rule: the value of `key`, where there is one, must pass `holds`; `source` states it."""

    key: str
    holds: Callable[[Any, Mapping[str, Any]], bool]
    text: str
    source: str


def _one_or_more(check: Callable[[str], object]) -> Callable[[Any, Mapping[str, Any]], bool]:
    def holds(value: Any, metadata: Mapping[str, Any]) -> bool:
        values = value if isinstance(value, list) else [value]
        return bool(values) and all(isinstance(v, str) and bool(check(v)) for v in values)

    return holds


def _known(key: str) -> Callable[[Any, Mapping[str, Any]], bool]:
    return lambda value, metadata: isinstance(value, str) and value in _VOCABULARY[key]


def _with(other: str) -> Callable[[Any, Mapping[str, Any]], bool]:
    return lambda value, metadata: other in metadata


def _is_text(value: Any, metadata: Mapping[str, Any]) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_gallery(value: Any, metadata: Mapping[str, Any]) -> bool:
    return isinstance(value, list) and all(_is_example(each) for each in value)


def _is_example(value: Any) -> bool:
    """A prompt, and a picture in the repository or at an address."""
    if not isinstance(value, dict) or not _is_text(value.get("text"), {}):
        return False
    output = value.get("output", {})
    url = output.get("url") if isinstance(output, dict) else None
    return (
        isinstance(url, str)
        and bool(_PICTURE.fullmatch(url))
        and (is_safe_path(url.removeprefix("./")) or bool(_ADDRESS.fullmatch(url)))
    )


def _has_results(value: Any, metadata: Mapping[str, Any]) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and {"name", "results"} <= each.keys() for each in value
    )


RULES = (
    Rule("license", _one_or_more(_VOCABULARY["license"].__contains__),
         "is no identifier of the Hub", _LICENCES),
    Rule("license", lambda v, m: v != "other" or "license_name" in m, "other needs license_name",
         _LICENCES),
    Rule("license_name", lambda v, m: m.get("license") == "other", "is for license: other only",
         _LICENCES),
    Rule("license_name", _one_or_more(_SLUG.fullmatch), "must be lower case without spaces",
         _LICENCES),
    Rule("license_name", _with("license_link"), "needs license_link", _LICENCES),
    Rule("license_link", _one_or_more(_LINK.fullmatch), "must be an address or a LICENSE file",
         _LICENCES),
    Rule("base_model", _one_or_more(is_hub_id), "must be owner/name, or a list of them", _CARDS),
    Rule("base_model_relation", _known("base_model_relation"), "is no relation it knows", _CARDS),
    Rule("base_model_relation", _with("base_model"), "needs base_model", _CARDS),
    Rule("library_name", _one_or_more(_SLUG.fullmatch), "must be lower case without spaces",
         _CARDS),
    Rule("pipeline_tag", _known("pipeline_tag"), "is no task it knows", _CARDS),
    Rule("tags", lambda v, m: isinstance(v, list), "must be a list", _SPEC),
    Rule("tags", _one_or_more(_TAG.fullmatch), "must be short words", _SPEC),
    Rule("language", _one_or_more(_LANGUAGE.fullmatch), "must be codes such as `en`", _CARDS),
    Rule("datasets", _one_or_more(str.strip), "must be names", _SPEC),
    Rule("metrics", _one_or_more(str.strip), "must be names", _SPEC),
    Rule("model-index", _has_results, "must be a list of entries with name and results", _SPEC),
    Rule("widget", _is_gallery, "must be a list of prompts, each with output.url, a picture",
         _GALLERY),
    Rule("extra_gated_prompt", _is_text, "must be text", _GATED),
)  # fmt: skip
#: Keys that fluxconv always puts there.
REQUIRED = ("license", "library_name", "pipeline_tag", "tags")


def metadata_problems(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What the Hub would not accept in this front matter, one sentence each."""
    missing = [f"{key}: is missing" for key in REQUIRED if key not in metadata]
    broken = [
        f"{rule.key}: {rule.text}"
        for rule in RULES
        if rule.key in metadata and not _holds(rule, metadata)
    ]
    return (*missing, *broken)


def _holds(rule: Rule, metadata: Mapping[str, Any]) -> bool:
    try:
        return rule.holds(metadata[rule.key], metadata)
    except TypeError:  # an unhashable value where a word belongs
        return False
