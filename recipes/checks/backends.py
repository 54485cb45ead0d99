"""The rows of `backends`: names, settings, importance files, libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluxconv.converters.backends import Backend, get_backend, missing
from fluxconv.converters.backends.options import parse_options
from fluxconv.converters.errors import UsageError
from fluxconv.recipes.checked import CheckedBackend
from fluxconv.recipes.checks.findings import Findings
from fluxconv.recipes.contradictions import ROW_SETTINGS, settings_of
from fluxconv.recipes.problems import Place
from fluxconv.recipes.recipe import BackendRow
from fluxconv.recipes.recipe_file import RecipeFile

_UNFIT = {
    "tensor_types": "only GGUF backends have tensor types",
    "effort": "only GGUF backends with blocks search",
    "importance": "only GGUF backends with blocks weigh errors",
}


def check_backends(file: RecipeFile, found: Findings) -> list[CheckedBackend | None]:
    """One for each row, None for a row with problems."""
    return [_checked(file, found, number, row) for number, row in enumerate(file.recipe.backends)]


def lacks(backend: Backend, device: str, *, elsewhere: bool) -> str | None:
    """What this machine lacks to make variants with `backend`, a sentence; None for nothing. Where
    the work is done `elsewhere` its devices are not those of this machine."""
    if elsewhere and device not in backend.quantizes_on:
        device = backend.quantizes_on[0]
    return missing(backend, device)


def _checked(
    file: RecipeFile, found: Findings, number: int, row: BackendRow
) -> CheckedBackend | None:
    place: Place = ("backends", number)
    with found.collecting((*place, "backend")):
        backend = get_backend(row.backend)
        given = _given(file, row)
        if _settings_fit(backend, given, place, found):
            return CheckedBackend(number, row, backend.configured(given), given)
    return None


def _given(file: RecipeFile, row: BackendRow) -> dict[str, Any]:
    """All settings as plain JSON, paths absolute."""
    given = settings_of(row)
    for key in ("skip", "tensor_types"):
        if key in given and key not in row.options:
            given[key] = list(given[key])
    if row.importance is not None:
        given["importance"] = str(file.path(row.importance))
    return given


def _settings_fit(
    backend: Backend, given: Mapping[str, Any], place: Place, found: Findings
) -> bool:
    """Whether they are the backend's; each that is not is a problem of its own."""
    before = len(found.problems)
    for key, value in given.items():
        if key in _UNFIT and key not in type(backend.options).model_fields:
            found.problem(_at(place, key), f"{backend.name}: {_UNFIT[key]}; remove `{key}`")
            continue
        with found.collecting(_at(place, key)):
            backend.configured({key: value})
    if len(found.problems) == before:  # one by one they are right; together they may not be
        with found.collecting((*place, "options")):
            made = backend.configured(given).options.changed()
            asked = parse_options(type(backend.options), given, backend.name).changed()
            for key in asked.keys() - made.keys():
                sentence = f"{backend.name}: `{key}` changes no byte of its files; remove it"
                found.problem(_at(place, key), sentence, UsageError.exit_code)
    return len(found.problems) == before


def _at(place: Place, key: str) -> Place:
    return (*place, key) if key in ROW_SETTINGS else (*place, "options", key)
