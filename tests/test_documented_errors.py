"""Troubleshooting has every error, and says of each what is so."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
from documented import DOCS, ROOT

from fluxconv.converters.errors import FluxconvError

ROOMS = ("commands", "recipes", "hub", "cards", "validators", "converters")
_CLASS = re.compile(r"^class (\w+)\(([^)]*)\)", re.M)
_SECTION = re.compile(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", re.M | re.S)


@cache
def errors() -> dict[str, type[FluxconvError]]:
    """`FluxconvError` and every class derived from it, wherever it is defined."""
    found: dict[str, type[FluxconvError]] = {}
    names = {FluxconvError.__name__}
    for _ in range(4):  # as deep as classes are derived
        for file in _files():
            for name, bases in _CLASS.findall(file.read_text("utf-8")):
                if names & set(re.findall(r"\w+", bases)):
                    names.add(name)
                    defined = getattr(importlib.import_module(_module(file)), name)
                    if issubclass(defined, FluxconvError):
                        found[name] = defined
    return found | {FluxconvError.__name__: FluxconvError}


@cache
def _files() -> tuple[Path, ...]:
    return tuple(file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py")))


def _module(file: Path) -> str:
    return ".".join(("fluxconv", *file.relative_to(ROOT).with_suffix("").parts))


@cache
def sections() -> dict[str, tuple[int, str]]:
    """Each error's exit code and text on the page."""
    text = (DOCS / "troubleshooting.md").read_text("utf-8")
    codes = [
        (match.start(), int(match[1])) for match in re.finditer(r"^## Exit code (\d+)", text, re.M)
    ]
    return {
        match[1]: (
            max([(0, 1), *((at, code) for at, code in codes if at < match.start())])[1],
            match[2],
        )
        for match in _SECTION.finditer(text)
    }


def test_page_has_every_error_and_no_other() -> None:
    assert len(errors()) > 20
    assert sections().keys() == errors().keys()


@pytest.mark.parametrize("name", sorted(errors()))
def test_each_has_its_exit_code_cause_and_cure(name: str) -> None:
    code, text = sections()[name]
    assert code == errors()[name].exit_code
    assert len(re.search(r"\*\*Cause\.\*\* (.+?)\n\*\*Cure", text, re.S)[1]) > 10
    assert len(re.search(r"\*\*Cure\.\*\* (.+)", text, re.S)[1]) > 10
    if errors()[name].resumable:
        assert "same command" in text


def test_quoted_sentences_are_said_somewhere() -> None:
    said = "\n".join(_strings())
    quoted = re.findall(
        r"^\| (?!the sentence|---)(.+?) \|", "\n".join(t for _, t in sections().values()), re.M
    )
    assert len(quoted) > 15
    for each in quoted:
        pattern = "[^\n]{0,60}?".join(map(re.escape, each.split("…")))
        assert re.search(pattern, said), f"nothing says: {each}"


def _strings() -> list[str]:
    """All texts in the source; what an f-string puts in is `{}`."""
    found = []
    for file in _files():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found
