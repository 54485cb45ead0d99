"""What the commands do can be imported by a public name that says what it takes and raises."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
from documented import ROOT

#: The packages whose `__all__` is a promise; each is in the reference.
PUBLIC = (
    "fluxconv.cards",
    "fluxconv.converters",
    "fluxconv.converters.architectures",
    "fluxconv.converters.backends",
    "fluxconv.converters.gguf",
    "fluxconv.converters.importance",
    "fluxconv.hub",
    "fluxconv.hub.rehearsal",
    "fluxconv.hub.rehearsal.faults",
    "fluxconv.recipes",
    "fluxconv.validators",
)


def public_names() -> list[tuple[str, str]]:
    """Every public name with its package."""
    return [
        (package, name)
        for package in PUBLIC
        for name in getattr(importlib.import_module(package), "__all__", ())
    ]


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("fluxconv.converters", "quantize"),
        ("fluxconv.validators", "validate"),
        ("fluxconv.cards", "write"),
        ("fluxconv.hub", "push"),
        ("fluxconv.hub", "download"),
        ("fluxconv.recipes", "run"),
    ],
)
def test_the_main_functions_take_the_same_progress(package: str, name: str) -> None:
    function = getattr(importlib.import_module(package), name)
    progress = inspect.signature(function).parameters["progress"]
    assert progress.kind is inspect.Parameter.KEYWORD_ONLY
    assert progress.default is None
    assert "Progress" in str(progress.annotation)
    assert "Raises" in function.__doc__


@pytest.mark.parametrize(("package", "name"), public_names(), ids=".".join)
def test_public_names_say_what_they_are(package: str, name: str) -> None:
    found = getattr(importlib.import_module(package), name)
    # Else whichever was imported first would decide what the name means.
    assert not inspect.ismodule(found)
    folder = Path(str(ROOT), *package.split(".")[1:])
    assert not (folder / f"{name}.py").exists() and not (folder / name).is_dir()
    if inspect.isclass(found):
        doc = found.__dict__.get("__doc__") or ""
        assert doc and not doc.startswith(f"{name}("), "has no docstring of its own"
    elif inspect.isfunction(inspect.unwrap(found)):
        assert found.__doc__
        signature = inspect.signature(found)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, parameter.name
