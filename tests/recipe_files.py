"""Recipes for tests: written, read with all that is wrong with them, and checked."""

from __future__ import annotations

from pathlib import Path

from fluxconv.recipes.checked import Checked
from fluxconv.recipes.checking import check_file
from fluxconv.recipes.problems import BadRecipe
from fluxconv.recipes.reading import read_leniently

TINY = Path(__file__).parent / "checkpoints" / "tiny-flux"
HEAD = "checkpoints: [a/b]\nbackends: [bnb-nf4]\n"


def written(folder: Path, text: str | bytes) -> Path:
    """The recipe `text` in a file; `TINY` in it stands for the tiny Flux."""
    file = folder / "release.yaml"
    data = text if isinstance(text, bytes) else text.replace("TINY", str(TINY)).encode()
    file.write_bytes(data)
    return file


def complaints(folder: Path, text: str | bytes) -> list[str]:
    """What reading says of it, each as `LINE: sentence`."""
    file = written(folder, text)
    try:
        problems = read_leniently(file).problems
    except BadRecipe as error:
        problems = error.problems
    return [f"{problem.line}: {problem.sentence}" for problem in problems]


def checked(folder: Path, text: str) -> Checked:
    """The recipe after every check."""
    return check_file(written(folder, text))


def findings(folder: Path, text: str) -> list[str]:
    """The problems that checking finds, each as `LINE: sentence`."""
    return [f"{each.line}: {each.sentence}" for each in checked(folder, text).problems]
