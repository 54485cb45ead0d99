"""Blind tests that people took on the page of a report, kept beside the report for the card.

A variant's `blind-test.json` holds one entry for each saved result, named by the result file's
sha256, so that the same file merged twice counts once. It belongs to one manifest: of a variant
that changed since it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from fluxconv.converters.errors import BadInput
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.variant import Variant, hash_file
from fluxconv.validators.blind_test import CHANCE, Mode, read_blind_test, wilson_interval
from fluxconv.validators.results import Strict

BLIND_TEST_NAME = "blind-test.json"


class Sitting(Strict):
    """What one saved result says of the variant: how many rounds, and how many guesses were right.

    `sha256` is that of the saved file.
    """

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    mode: Mode
    rounds: int = Field(gt=0)
    right: int = Field(ge=0)


class BlindTests(Strict):
    """The whole of `blind-test.json`."""

    format_version: Literal[1] = 1
    manifest_sha256: str
    sittings: tuple[Sitting, ...]


@dataclass(frozen=True)
class Outcome:
    """All sittings of one mode together. Shares are of 1; the interval is Wilson's at 95 %."""

    mode: Mode
    sittings: int
    rounds: int
    right: int

    @property
    def share(self) -> float:
        return self.right / self.rounds

    @property
    def chance(self) -> float:
        """What guessing gives."""
        return CHANCE[self.mode]

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.right, self.rounds)

    @property
    def is_told_apart(self) -> bool:
        """Whether so many right guesses are more than luck."""
        return self.interval[0] > self.chance


def merge_blind_tests(files: Sequence[Path], variants: Sequence[Variant]) -> None:
    """Keep what the saved results say of these variants beside their reports.

    What they say of other variants is left alone. Raises `BadInput` if a file is no saved result,
    is about none of these variants, or about another state of one; then none of them is kept.
    """
    found = [(variant, sitting) for file in files for variant, sitting in _about(file, variants)]
    for variant, sitting in found:
        _keep(variant, sitting)


def read_blind_tests(variant: Variant) -> tuple[Sitting, ...]:
    """The sittings kept beside the report; none if they are of another state of the variant.

    Raises `BadInput` if the file is garbled.
    """
    place = variant.root / BLIND_TEST_NAME
    if not place.is_file():
        return ()
    try:
        tests = BlindTests.model_validate_json(place.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BadInput(f"{place}: is not what `fluxconv card` keeps there; remove it") from error
    return tests.sittings if tests.manifest_sha256 == _manifest_sha256(variant) else ()


def outcomes(sittings: Sequence[Sitting]) -> tuple[Outcome, ...]:
    """The sittings added up, one outcome for each mode."""
    found = []
    for mode in CHANCE:
        chosen = [sitting for sitting in sittings if sitting.mode == mode]
        if chosen:
            rounds, right = sum(s.rounds for s in chosen), sum(s.right for s in chosen)
            found.append(Outcome(mode, len(chosen), rounds, right))
    return tuple(found)


def _about(file: Path, variants: Sequence[Variant]) -> list[tuple[Variant, Sitting]]:
    """What the saved result in `file` says of these variants."""
    test = read_blind_test(file)
    sha256 = hash_file(file).sha256
    results = {result.variant: result for result in test.results}
    found = [variant for variant in variants if variant.name in results]
    if not found:
        raise BadInput(
            f"{file}: is a blind test of {', '.join(results)}; give the variant that it is about"
        )
    for variant in found:
        if results[variant.name].manifest_sha256 != _manifest_sha256(variant):
            raise BadInput(
                f"{file}: belongs to another state of {variant.name} than the one in "
                f"{variant.root}; take the test again on the page of its report"
            )
        read_blind_tests(variant)  # what is there must be whole before anything is added
    return [
        (
            variant,
            Sitting(
                sha256=sha256,
                mode=test.mode,
                rounds=results[variant.name].rounds,
                right=results[variant.name].right,
            ),
        )
        for variant in found
    ]


def _keep(variant: Variant, sitting: Sitting) -> None:
    before = read_blind_tests(variant)
    if any(known.sha256 == sitting.sha256 for known in before):
        return
    tests = BlindTests(
        manifest_sha256=_manifest_sha256(variant), sittings=(*before, sitting)
    ).model_dump_json(indent=2)
    place = variant.root / BLIND_TEST_NAME
    if place.is_symlink():
        raise BadInput(f"{place}: is a symbolic link; remove it")
    partial = place.with_name(f".{BLIND_TEST_NAME}.partial")
    partial.write_text(tests + "\n", "utf-8")
    partial.replace(place)


def _manifest_sha256(variant: Variant) -> str:
    return hash_file(variant.root / MANIFEST_NAME).sha256
