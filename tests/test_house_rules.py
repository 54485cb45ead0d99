"""The rules of the house: imports point down, nothing heavy loads early, packaging is complete."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: From the top of the house to the bottom; a room may import the rooms below it.
ROOMS = ("commands", "recipes", "hub", "cards", "validators", "converters")


def _imports(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("fluxconv.")}
    return rooms


@pytest.mark.parametrize("room", ROOMS)
def test_imports_only_point_down(room: str) -> None:
    allowed = set(ROOMS[ROOMS.index(room) :])
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        assert _imports(file) <= allowed, file


def _fluxconv(*arguments: str) -> tuple[float, str]:
    # Processor time: a busy machine makes everything wait.
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fluxconv.commands", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return used, done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("backends",), ("quantize", "--help")])
def test_answers_at_once_without_torch(arguments: tuple[str, ...]) -> None:
    runs = [_fluxconv(*arguments) for _ in range(3)]
    loaded = {line.rsplit("|", 1)[-1].strip() for line in runs[0][1].splitlines() if "|" in line}
    assert "fluxconv.commands.main" in loaded
    heavy = {"torch", "diffusers", "transformers", "bitsandbytes", "torchao", "numpy"}
    assert not loaded & heavy
    # The promise is 0.3 s; the best of three, because another process may have the cache.
    assert min(seconds for seconds, _ in runs) < 0.3


def test_packaging_names_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        "fluxconv." + ".".join(file.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for file in (ROOT / room).rglob("__init__.py")
    }
    assert set(settings["packages"]) == found
    assert settings["package-dir"] == {f"fluxconv.{room}": room for room in ROOMS}


def test_every_room_is_typed_and_linked_for_mypy() -> None:
    for room in ROOMS:
        assert (ROOT / room / "py.typed").is_file()
        assert (ROOT / ".typing" / "fluxconv" / room).resolve() == ROOT / room
