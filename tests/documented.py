"""What the documentation says that can be tried: its pages, and the commands in their fences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
#: Every page that people read, in the repository or on the site.
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
_FENCE = re.compile(
    r"^(?P<ticks>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=ticks)$", re.M | re.S
)
#: Where a shell ends one command and begins another, or leads its output elsewhere.
_ENDS = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>"}


def name_of(page: Path) -> str:
    """The page as a test's name has it."""
    return page.relative_to(ROOT).as_posix()


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of every command in `sh` and `console` fences, comments left out."""
    for fence in _FENCE.finditer(text):
        language, body = fence["language"], fence["body"].replace("\\\n", " ")
        if language not in ("sh", "bash", "console"):
            continue
        for line in body.splitlines():
            if language == "console":
                if not line.startswith("$ "):
                    continue  # what the command before it answered
                line = line[2:]
            yield from _split(line)


def yaml_in(text: str) -> list[str]:
    """The contents of `yaml` fences, but for the front matter of cards."""
    fences = [fence["body"] for fence in _FENCE.finditer(text) if fence["language"] == "yaml"]
    return [body for body in fences if not body.startswith("---")]


def spans_in(text: str) -> list[str]:
    """The contents of inline code, fences left out."""
    return re.findall(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", _FENCE.sub("", text))


def _split(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word in _ENDS:
            yield from _without_settings(words)
            words = []
        else:
            words.append(word)
    yield from _without_settings(words)


def _without_settings(words: list[str]) -> Iterator[list[str]]:
    """The command behind `NAME=value` in front of it, if there is one."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words:
        yield words
