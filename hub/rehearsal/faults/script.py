"""The script of faults: which requests, which of them, and what happens.

As a file (YAML or JSON)::

    faults:
      - match: POST /api/models/*/commit/*     # method (or *) and path; * is any text
        nth: 1                                 # the first such request, which is the default
        times: 1                               # and how many from there on; null: for ever
        action: {do: lost-reply}

A pattern with a ``?`` is compared with path and query, any other with the path as it was sent.
Every matching request is counted for every fault; of those whose turn it is, the first acts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator

from fluxconv.hub.rehearsal.faults.actions import ACTIONS, Action

_PATTERN = re.compile(r"(\*|[A-Z]+(?:\|[A-Z]+)*) (/\S*|\*)")


class ScriptError(Exception):
    """A script cannot be used; the message says what is wrong and where."""


class Fault(BaseModel):
    """What goes wrong, and when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str
    nth: int = Field(1, ge=1)
    times: int | None = Field(1, ge=1)
    action: SerializeAsAny[Action]

    @field_validator("match")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        if not _PATTERN.fullmatch(value):
            raise ValueError("give a method (or *) and a path, as in 'GET /api/models/*'")
        return value

    @field_validator("action", mode="before")
    @classmethod
    def _of_registry(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kind = ACTIONS.get(str(value.get("do")))
        if kind is None:
            raise ValueError(f"'do' is one of {', '.join(ACTIONS)}")
        return kind.model_validate(value)

    def matches(self, method: str, path: str, query: str) -> bool:
        """Whether a request is one of those meant."""
        methods, _, pattern = self.match.partition(" ")
        if methods != "*" and method not in methods.split("|"):
            return False
        text = f"{path}?{query}" if "?" in pattern else path
        return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None

    def is_turn(self, count: int) -> bool:
        """Whether it acts on the request that is number ``count`` of those meant."""
        return count >= self.nth and (self.times is None or count < self.nth + self.times)


class Script(BaseModel):
    """A list of faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    faults: tuple[Fault, ...]

    @classmethod
    def parse(cls, text: str | bytes) -> Script:
        """Read a script; a `ScriptError` names the first thing wrong in it."""
        try:
            return cls.model_validate(yaml.safe_load(text))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            what = first["msg"].removeprefix("Value error, ")
            raise ScriptError(f"{where}: {what}") from None
        except yaml.YAMLError as error:
            raise ScriptError(f"not YAML: {' '.join(str(error).split())}") from None


def read_script(path: Path) -> Script:
    """The script in a file; a `ScriptError` names the file."""
    try:
        return Script.parse(path.read_bytes())
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror}") from None
    except ScriptError as error:
        raise ScriptError(f"{path}: {error}") from None
