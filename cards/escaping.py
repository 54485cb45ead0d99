"""Text from a checkpoint on its way into a card: shown as it is, never interpreted.

Names, prompts and licence names belong to whoever made the checkpoint. In a card they stand in
code spans or as escaped prose, so that they can neither make links, pictures or HTML, nor end the
part of the README that belongs to fluxconv.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_SPECIAL = re.compile(r"[\\`*_\[\]|~$]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Where GFM would make a link of bare text.
_AUTOLINK = re.compile(r"(?i)\b(https?|ftp|mailto)(:)|\b(www)(\.)|(@)")
_LONGEST = 1000


class Markdown(str):
    """Text that is Markdown already; a template puts it in as it is."""

    __slots__ = ()


def one_line(text: str) -> str:
    """`text` without line breaks, control characters and invisible ones that reorder text."""
    kept = "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co")
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= _LONGEST else kept[: _LONGEST - 1] + "…"


def prose(value: Any) -> Markdown:
    """`value` as running text; what is Markdown already stays."""
    if isinstance(value, Markdown):
        return value
    text = _SPECIAL.sub(r"\\\g<0>", one_line(str(value)))
    for character, entity in _HTML.items():
        text = text.replace(character, entity)
    return Markdown(_AUTOLINK.sub(_without_link, text))


def code(value: Any) -> Markdown:
    """`value` as a code span, with a fence longer than any run of backticks in it."""
    # The one thing that means something even inside a code span: our own markers are found there.
    text = one_line(str(value)).replace("<!--", "<! --").replace("-->", "-- >")
    if not text:
        return Markdown("(empty)")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{fence}{padding}{text}{padding}{fence}")


def cell(value: Any) -> Markdown:
    """`value` as a code span inside a table, where a bar would end the cell."""
    return Markdown(code(value).replace("|", r"\|"))


def python_literal(text: str) -> str:
    """Python source of the string, on one line and free of anything that could end a card."""
    return repr(text).replace("<!--", r"\x3c!--").replace("-->", r"--\x3e")


def _without_link(match: re.Match[str]) -> str:
    before = match[1] or match[3] or ""
    sign = match[2] or match[4] or match[5]
    return f"{before}&#{ord(sign)};"
