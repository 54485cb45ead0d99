"""What pydantic finds wrong with a recipe, in sentences for whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fluxconv.converters.errors import nearest
from fluxconv.converters.visible import visible
from fluxconv.recipes.problems import Place, Problem
from fluxconv.recipes.recipe import Recipe

_LIST = "must be a list: each of its values behind a dash on a line of its own, or all in [ ]"
#: By the type of pydantic's error, what is said of the value; `{...}` is from the error's context.
_SENTENCES: Mapping[str, str] = {
    "string_too_short": "is empty",
    "string_too_long": "is longer than {max_length} characters",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": _LIST,
    "too_short": "needs at least one value",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "dict_type": "must hold keys and values",
    "model_type": "must hold keys and values",
    "string_type": "must be text",
}
_COLLECTIONS = {"tuple_type", "dict_type", "model_type"}


def worded(error: ErrorDetails) -> Problem:
    """One of pydantic's errors as a problem; it has no line yet."""
    place: Place = tuple(error["loc"])
    say = _SPECIAL.get(error["type"], _plain)
    return Problem(say(error, place), place[:-1] if error["type"] == "missing" else place)


def _plain(error: ErrorDetails, place: Place) -> str:
    value, kind = error["input"], error["type"]
    key = Problem("", place).key
    if value is None and kind in _COLLECTIONS:
        return f"{key}: is empty; write what belongs under it, or remove it"
    message = error["msg"].removeprefix("Value error, ")
    said = _SENTENCES.get(kind, message[:1].lower() + message[1:])
    said = said.format(**error.get("ctx", {}))
    if (
        kind in _COLLECTIONS
        or isinstance(value, dict | list)
        or kind in ("string_too_short", "string_too_long")
    ):
        return f"{key}: {said}"
    quotes = "; put it in quotes" if kind == "string_type" and value is not None else ""
    shown = f"'{visible(value)}'" if isinstance(value, str) else _yaml(value)
    return f"{key}: {said}, and is {shown}{quotes}"


def _missing(error: ErrorDetails, place: Place) -> str:
    around = Problem("", place[:-1]).key
    return f"{around + ': ' if around else ''}the key '{place[-1]}' is missing"


def _unknown(error: ErrorDetails, place: Place) -> str:
    *around, key = place
    known = keys_at(tuple(around))
    where = Problem("", tuple(around)).key
    owners = [] if key in known else _owners(str(key))
    if owners and not any(isinstance(step, int) for step in around):
        return f"{where + ': ' if where else ''}'{visible(key)}' belongs {' or '.join(owners)}"
    return f"{where + ': ' if where else ''}unknown key '{visible(key)}'{nearest(str(key), known)}"


def _owners(key: str) -> list[str]:
    """Where a key is known, in words."""
    found = []
    if key in Recipe.model_fields:
        found.append("at the top, not under anything")
    for name in Recipe.model_fields:
        inner = _model(Recipe.model_fields[name].annotation)
        if inner is not None and key in inner.model_fields:
            found.append(f"under `{name}:`")
    return found


def _choice(error: ErrorDetails, place: Place) -> str:
    known = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
    value = error["input"]
    shown = f"'{visible(value)}'" if isinstance(value, str) else _yaml(value)
    return f"{Problem('', place).key}: {shown} is not one of {known}"


_SPECIAL: Mapping[str, Callable[[ErrorDetails, Place], str]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "literal_error": _choice,
}


def keys_at(place: Place) -> list[str]:
    """The keys that the part of a recipe at `place` may have."""
    model: type[BaseModel] | None = Recipe
    for step in place:
        if isinstance(step, str) and model is not None:
            field = model.model_fields.get(step)
            model = _model(field.annotation) if field else None
    return list(model.model_fields) if model else []


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model within a field's annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model(each))), None)


def _yaml(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else visible(value)
