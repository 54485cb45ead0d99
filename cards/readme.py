"""A README: front matter, the part between the markers, and what somebody wrote around them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from fluxconv.cards.metadata import OWNED
from fluxconv.converters.errors import BadInput

BEGIN = "<!-- fluxconv:begin -->"
END = "<!-- fluxconv:end -->"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Readme:
    """A README taken apart; `before` and `after` are somebody's own words."""

    metadata: Mapping[str, Any]
    before: str
    after: str

    @property
    def is_written_by_hand(self) -> bool:
        """Whether there is anything around fluxconv's part."""
        return bool(self.before.strip() or self.after.strip())


def parse(text: str, where: str) -> Readme:
    """Take a README apart; `where` names it in errors.

    Raises `BadInput` for broken front matter, or for markers that do not make one pair.
    """
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    metadata: Any = {}
    if match := _FRONT_MATTER.match(text):
        try:
            metadata = yaml.safe_load(match[1]) or {}
        except yaml.YAMLError as error:
            raise BadInput(f"{where}: its front matter is not valid YAML; correct it") from error
        if not isinstance(metadata, dict):
            raise BadInput(f"{where}: its front matter is not a list of keys and values")
        text = text[match.end() :]
    begin, end = text.count(BEGIN), text.count(END)
    if (begin, end) == (0, 0):
        return Readme(metadata, text, "")
    if (begin, end) != (1, 1) or text.index(BEGIN) > text.index(END):
        raise BadInput(
            f"{where}: needs the lines {BEGIN} and {END} once each, in this order; restore or "
            "remove them"
        )
    before, _, rest = text.partition(BEGIN)
    return Readme(metadata, before, rest.partition(END)[2])


def compose(body: str, metadata: Mapping[str, Any], existing: Readme) -> str:
    """A README with `body` as fluxconv's part and `metadata` above, the rest as it was."""
    theirs = {key: value for key, value in existing.metadata.items() if key not in OWNED}
    tags = existing.metadata.get("tags", [])
    own_tags = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    # Ours first, so that the order never depends on what was there before.
    merged = dict(metadata) | {key: value for key, value in theirs.items() if key not in metadata}
    merged["tags"] = list(dict.fromkeys([*metadata["tags"], *own_tags]))
    front = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=10_000)
    before = existing.before.strip("\n")
    after = existing.after.strip("\n")
    parts = [before, f"{BEGIN}\n{body.strip()}\n{END}", after]
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"
