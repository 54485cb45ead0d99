"""What is wrong with a recipe: each problem with its place in the file, all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fluxconv.converters.errors import BadInput
from fluxconv.converters.visible import visible_path

#: Where in a recipe something stands: keys of mappings, numbers of rows.
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `sentence` says what and what to do, `place` names the part of the
    recipe, `line` is its line in the file (from 1), None for a recipe that was not read from one.
    `exit_code` is that of the error that the work would have ended with."""

    sentence: str
    place: Place = ()
    line: int | None = None
    exit_code: int = BadInput.exit_code

    @property
    def key(self) -> str:
        """The place in words: `backends[2].options.packing`."""
        text = ""
        for step in self.place:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
        return text


class BadRecipe(BadInput):
    """A recipe cannot be used; the message has a line for each problem.

    The exit code is that of bad input, unless all problems agree on another one (a library that is
    not installed, a Hub that refuses).
    """

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        self.details = {
            "problems": [
                {"line": each.line, "key": each.key, "problem": each.sentence}
                for each in self.problems
            ]
        }
        codes = {problem.exit_code for problem in self.problems}
        if len(codes) == 1:
            self.exit_code = codes.pop()
        lines = [told(name, problem) for problem in self.problems]
        if len(lines) > 1:
            lines.insert(0, f"{len(lines)} problems")
        super().__init__("\n".join(lines))


def told(name: str, problem: Problem) -> str:
    """`FILE:LINE: sentence`, for a recipe called `name`."""
    where = f":{problem.line}" if problem.line else ""
    return f"{visible_path(name)}{where}: {problem.sentence}"
