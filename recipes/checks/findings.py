"""What the checks find: problems, each at its place, and remarks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fluxconv.converters.errors import BadInput, FluxconvError, HubUnreachable
from fluxconv.recipes.problems import Place, Problem
from fluxconv.recipes.recipe_file import RecipeFile

#: The other rooms speak of their commands' options; these are the recipe's words for them.
_WORDS: Mapping[str, str] = {
    "--allow-requantize": "`allow_requantize: true`",
    "--base": "`base:`",
    "--component": "`components:`",
    "--importance": "`importance:`",
    "--limit": "`limit:`",
    "--offload": "`offload:`",
    "--option": "`options:`",
    "--replace": "`replace: true`",
    "--revision": "`revision:`",
    "--skip": "`skip:`",
    "--source-id": "`source_id:`",
    "--tensor-type": "`tensor_types:`",
}
_OPTION = re.compile(r"--[a-z-]+")
#: What only somebody who has a variant already must do.
_LATER = " and quantize it again"


class Findings:
    """Collects what is wrong with a recipe, and what its user should know."""

    def __init__(self, file: RecipeFile) -> None:
        self._file = file
        self.problems: list[Problem] = list(file.problems)
        self.remarks: list[str] = []
        self._hidden = ""

    def hide(self, folder: Path) -> None:
        """Leave this folder, of which the user knows nothing, out of every path that is told."""
        self._hidden = f"{folder}/"

    def problem(self, place: Place, sentence: str, exit_code: int = BadInput.exit_code) -> None:
        """Something is wrong at `place`; said once, however many checks come upon it."""
        if self._hidden:
            sentence = sentence.replace(self._hidden, "")
        found = self._file.placed(Problem(sentence, place, exit_code=exit_code))
        if found not in self.problems:
            self.problems.append(found)

    def remark(self, sentence: str) -> None:
        """Something to know; said once."""
        if sentence not in self.remarks:
            self.remarks.append(sentence)

    @contextmanager
    def collecting(self, place: Place) -> Iterator[None]:
        """What the block raises is a problem at `place`; but that the Hub cannot be reached is none
        of the recipe's, and passed on."""
        try:
            yield
        except HubUnreachable:
            raise
        except FluxconvError as error:
            self.problem(place, in_words_of_recipes(str(error)), error.exit_code)

    def sorted(self) -> tuple[Problem, ...]:
        """All problems in the order of the file."""
        return tuple(sorted(self.problems, key=lambda problem: problem.line or 0))


def in_words_of_recipes(sentence: str) -> str:
    """A sentence about the options of a command, about keys; nothing was made yet."""
    said = _OPTION.sub(lambda found: _WORDS.get(found[0], found[0]), sentence)
    return said.replace(_LATER, "")
