"""The JSON Schema of recipes, for editors: completion, and a red line under what is wrong.

It says more than the models do, as far as names are known: the backends, the settings of each, the
modes. What it accepts may still be refused by `check`; what it refuses, reading refuses too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fluxconv.recipes.recipe import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: What `fluxconv recipe init` and the examples call the file.
SCHEMA_NAME = "recipe.schema.json"


def recipe_schema() -> dict[str, Any]:
    """The schema, in draft 2020-12, with descriptions."""
    found = Recipe.model_json_schema()
    parts = found["$defs"]
    _without_titles(found)
    _describe_backends(parts["BackendRow"])
    _name_modes(parts["PerformancePart"])
    for key, row, wanted in (
        ("checkpoints", "CheckpointRow", "id"),
        ("backends", "BackendRow", "backend"),
    ):
        alone = parts[row]["properties"][wanted]
        found["properties"][key]["items"] = {"anyOf": [alone, {"$ref": f"#/$defs/{row}"}]}
    return {"$schema": DIALECT, "title": "A fluxconv recipe", **found}


def write_schema(file: Path) -> None:
    """Write the schema to `file`, which is replaced if it exists."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(file)


def _without_titles(schema: Any) -> None:
    """pydantic makes titles of the names of fields: they say nothing, and editors show them."""
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        if isinstance(schema.get("description"), str):
            schema["description"] = " ".join(schema["description"].split())
    for value in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(value, dict | list):
            _without_titles(value)


def _describe_backends(row: dict[str, Any]) -> None:
    """Each backend's name, and once it stands there, the settings that it has."""
    from fluxconv.converters.backends import all_backends
    from fluxconv.recipes.contradictions import ROW_SETTINGS

    described = [
        {"const": name, "description": f"{backend.title}, {backend.bits:g} bits"}
        for name, backend in all_backends().items()
    ]
    name = row["properties"]["backend"]
    row["properties"]["backend"] = {"description": name["description"], "oneOf": described}
    known: dict[str, list[str]] = {}
    for each, backend in all_backends().items():
        options = type(backend.options).model_json_schema()
        own = {k: v for k, v in options["properties"].items() if k not in ROW_SETTINGS}
        said = options["description"] if own else "This backend has none of its own."
        settings = {"description": said, "properties": own, "additionalProperties": False}
        _without_titles(settings)
        known.setdefault(json.dumps(settings, sort_keys=True), []).append(each)
    row["allOf"] = [
        {
            "if": {"properties": {"backend": {"enum": names}}, "required": ["backend"]},
            "then": {"properties": {"options": json.loads(settings)}},
        }
        for settings, names in known.items()
    ]


def _name_modes(part: dict[str, Any]) -> None:
    from fluxconv.converters.modes import MODES

    part["properties"]["modes"]["items"] = {
        "oneOf": [{"const": mode.name, "description": mode.title} for mode in MODES.values()]
    }
