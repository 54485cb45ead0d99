"""The JSON Schema of recipes, and the recipes that are brought along: valid for it and for us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from recipe_files import HEAD, complaints

from fluxconv.converters.backends import all_backends
from fluxconv.recipes.checking import check_file
from fluxconv.recipes.contradictions import ROW_SETTINGS
from fluxconv.recipes.reading import read_recipe
from fluxconv.recipes.recipe import Part, Recipe, Validation
from fluxconv.recipes.schema import DIALECT, recipe_schema
from fluxconv.validators.report import Settings
from fluxconv.validators.settings import preset_names

EXAMPLES = Path(__file__).parent.parent / "recipes" / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))
PUBLISHED = Path(__file__).parent.parent / "validators" / "recommendation.yaml"


def _refused(recipe: Any) -> bool:
    return not Draft202012Validator(recipe_schema()).is_valid(recipe)


def test_it_is_a_schema_of_its_draft_that_describes_every_key() -> None:
    found = recipe_schema()
    assert found["$schema"] == DIALECT == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(found)
    parts = {"Recipe": found, **found["$defs"]}
    for part in (Recipe, *Part.__subclasses__()):
        for name, schema in parts[part.__name__]["properties"].items():
            told = schema.get("description") or "$ref" in json.dumps(schema)
            assert told, f"{part.__name__}.{name}"
            assert "title" not in schema


def test_every_backend_is_named_with_its_own_settings() -> None:
    for name, backend in all_backends().items():
        own = type(backend.options).model_fields.keys() - set(ROW_SETTINGS)
        recipe = {"checkpoints": ["a/b"], "backends": [name, {"backend": name}]}
        assert not _refused(recipe)
        row = {"backend": name, "options": {"nothing": 1}}
        assert _refused({**recipe, "backends": [row]})
        for key in own:
            default = getattr(backend.options, key)
            assert not _refused({**recipe, "backends": [{**row, "options": {key: default}}]})


#: What reading refuses without a look at the world: the schema refuses it, too.
BAD = (
    "devise: cpu",
    "device: gpu",
    "components: [vae]",
    "validation: {steps: 8.5}",
    "validation: {steps: '8'}",
    "validation: {height: 65}",
    "validation: {seeds: []}",
    "validation: {seeds: [-1]}",
    "validation: {guidance: 101}",
    "validation:",
    "performance: {modes: plain}",
    "performance: {modes: []}",
    "publication: {}",
    "publication: {namespace: me, gated: never}",
    "publication: {namespace: me, timeout: 0}",
    "publication: {namespace: me, replace: 1}",
    "executor: {kind: slurm}",
    "executor: {processes: 0}",
    "output: ''",
    "output: 3",
)


@pytest.mark.parametrize("line", BAD)
def test_model_and_schema_refuse_the_same(line: str, tmp_path: Path) -> None:
    assert not _refused(yaml.safe_load(HEAD))
    assert _refused(yaml.safe_load(HEAD + line))
    assert len(complaints(tmp_path, HEAD + line + "\n")) == 1


def test_the_schema_beside_the_examples_is_the_one_that_is_printed() -> None:
    assert json.loads((EXAMPLES / "recipe.schema.json").read_text()) == recipe_schema()


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_for_the_schema_and_for_us(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    assert not list(Draft202012Validator(recipe_schema()).iter_errors(yaml.safe_load(text)))
    recipe = read_recipe(EXAMPLES / name).recipe
    for row in recipe.backends:
        assert row.backend in all_backends()


def test_the_guides_example_has_the_guides_backends() -> None:
    recipe = read_recipe(EXAMPLES / "flux-dev-guide.yaml").recipe
    published = yaml.safe_load(PUBLISHED.read_text())["published"]
    assert {row.backend for row in recipe.backends} == set(published)


def test_the_gguf_example_has_every_gguf_backend() -> None:
    recipe = read_recipe(EXAMPLES / "flux-dev-gguf.yaml").recipe
    assert {row.backend for row in recipe.backends} == {n for n in all_backends() if "gguf" in n}


def test_the_tiny_example_can_be_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = check_file(EXAMPLES / "tiny-flux.yaml")
    assert not found.problems
    assert [each.made_by.backend.name for each in found.variants] == [
        "bnb-nf4",
        "torchao-int8",
        "gguf-q8_0",
    ]
    (settings,) = (each.settings for each in found.checkpoints)
    assert settings is not None
    assert (settings.height, settings.steps, len(settings.prompts)) == (64, 8, 4)


def test_the_words_of_the_recipe_are_those_of_validation() -> None:
    assert set(Validation().overrides) == Settings.model_fields.keys() - {"prompts"}
    assert Validation.model_fields["preset"].annotation.__args__ == preset_names()  # type: ignore[union-attr]
