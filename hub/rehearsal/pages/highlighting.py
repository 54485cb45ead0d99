"""Colours for the few languages that cards hold."""

from __future__ import annotations

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

_LANGUAGES = {
    "bash": "bash",
    "console": "console",
    "diff": "diff",
    "json": "json",
    "jsonl": "json",
    "py": "python",
    "python": "python",
    "sh": "bash",
    "shell": "bash",
    "toml": "toml",
    "yaml": "yaml",
    "yml": "yaml",
}
# Whoever wrote the code chose it, and some patterns of a lexer can be made to run for long.
_LONGEST = 20_000

#: The classes that coloured code can have.
CLASSES = {name for name in STANDARD_TYPES.values() if name}


def highlighted(code: str, language: str, _: str = "") -> str:
    """`code` as HTML, escaped; empty for a language that stays plain."""
    name = _LANGUAGES.get(language.lower())
    if name is None or len(code) > _LONGEST:
        return ""
    formatter = HtmlFormatter(nowrap=True)
    return str(highlight(code, get_lexer_by_name(name, stripnl=False), formatter))
