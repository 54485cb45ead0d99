"""The record of a blind test played in `report.html`, as the page saves it.

`docs/validation.md` explains how the game goes. Who guesses is right once in two rounds of pairs,
once in three rounds of triples.
"""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from fluxconv.converters.errors import BadInput
from fluxconv.validators.results import Strict

_Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
_LARGEST = 8 << 20  # bytes: a saved test is a few thousand
_MOST_ROUNDS = 10_000

Mode = Literal["pairs", "triples"]
#: The share of rounds in which somebody who guesses is right.
CHANCE: dict[Mode, float] = {"pairs": 1 / 2, "triples": 1 / 3}

_Text = Annotated[str, StringConstraints(min_length=1)]
_Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class BlindResult(Strict):
    """How often somebody was right about one variant.

    `manifest_sha256` is that of its report: a card takes no result of other files.
    """

    variant: _Text
    manifest_sha256: _Sha256
    rounds: int = Field(gt=0, le=_MOST_ROUNDS)
    right: int = Field(ge=0)

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.right > self.rounds:
            raise ValueError("more right answers than rounds")
        return self


class BlindTest(Strict):
    """One game: the variants that came up in it, and the sums over all of them.

    `planned` is the number of rounds asked for: fewer `rounds` mean that it was stopped early.
    `prompts` are those that were shown, `date` is the browser's, `page_version` that of the page.
    """

    kind: Literal["fluxconv-blind-test"] = "fluxconv-blind-test"
    format_version: Literal[1] = 1
    page_version: int = Field(gt=0)
    date: datetime
    reference: str
    mode: Mode
    planned: int = Field(gt=0, le=_MOST_ROUNDS)
    rounds: int = Field(gt=0, le=_MOST_ROUNDS)
    right: int = Field(ge=0)
    prompts: tuple[str, ...] = Field(min_length=1)
    results: tuple[BlindResult, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sums_agree(self) -> Self:
        if self.rounds > self.planned:
            raise ValueError("more rounds than were planned")
        if self.rounds != sum(result.rounds for result in self.results):
            raise ValueError("the rounds of the variants do not add up")
        if self.right != sum(result.right for result in self.results):
            raise ValueError("the right answers of the variants do not add up")
        if len({result.variant for result in self.results}) != len(self.results):
            raise ValueError("a variant stands in it twice")
        return self


def read_blind_test(file: Path) -> BlindTest:
    """A blind test that the page has saved; raises `BadInput` saying what is wrong with it."""
    try:
        if file.stat().st_size > _LARGEST:
            raise BadInput(f"{file}: is too large for a blind test; save it from the page again")
        return BlindTest.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file") from None
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise BadInput(
            f"{file}: is not a blind test saved by report.html"
            f" ({f'{where}: ' if where else ''}{what[:1].lower()}{what[1:]}); save it again"
        ) from error


def wilson_interval(right: int, rounds: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `right` of `rounds` were seen, within 0 to 1.

    Wilson's score interval (1927): sound for few rounds and for shares near 0 and 1, too. Raises
    `ValueError` unless 0 <= right <= rounds and there is a round.
    """
    if rounds < 1 or not 0 <= right <= rounds:
        raise ValueError(f"{right} of {rounds}")
    share, weight = right / rounds, _Z**2 / rounds
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)
