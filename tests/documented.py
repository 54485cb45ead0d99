"""What the documentation says that can be tried: its pages, and the commands in their fences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NAME = "fluxconv"
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
        lines = body.splitlines()
        if language == "console":  # what does not begin so is what a command answered
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in _whole(lines):
            yield from _split(line)


def yaml_in(text: str) -> list[str]:
    """The contents of `yaml` fences, but for the front matter of cards."""
    fences = [fence["body"] for fence in _FENCE.finditer(text) if fence["language"] == "yaml"]
    return [body for body in fences if not body.startswith("---")]


def prose(text: str) -> str:
    """A page without its fences."""
    return _FENCE.sub("", text)


def spans_in(text: str) -> list[str]:
    """The contents of inline code, fences left out."""
    return re.findall(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", prose(text))


def _whole(lines: list[str]) -> Iterator[str]:
    """The lines, each with those after it that are inside its quotes."""
    held = ""
    for line in lines:
        held += line + "\n"
        try:
            shlex.split(held, comments=True)
        except ValueError:
            continue
        yield held
        held = ""
    assert not held, held


def _split(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in (*lexer, ";"):
        if word not in _ENDS:
            words.append(word)
            continue
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]  # settings in front of the command
        if words:
            yield words
            yield from _inside(words)
        words = []


def _inside(words: list[str]) -> Iterator[list[str]]:
    """Commands of ours that another command is to run, as words or as one text."""
    if NAME in words[1:-1]:
        yield words[words.index(NAME, 1) :]
    for word in words:
        if f"{NAME} " in word:
            yield from _split(word)
