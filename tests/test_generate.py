"""`fluxconv generate`: a picture, and in it all that is needed to draw it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_commands import answer, fluxconv

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.variant import hash_file
from fluxconv.validators import load_settings
from fluxconv.validators.generation import CHUNK, Recipe, generate, read_recipe

PROMPT = "a red circle — on a blue background"


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def again(recipe: Recipe, model: Checkpoint | Variant, output: Path) -> None:
    """Draw what the recipe says, and nothing else."""
    given = recipe.model_dump(include={"height", "width", "steps", "guidance"})
    given["max_sequence_length"] = recipe.max_sequence_length
    given |= {"prompts": (recipe.prompt,), "seeds": (recipe.seed,)}
    settings = load_settings(model.root, given)
    generate(model, settings, output, device=recipe.device, mode=recipe.mode)


def test_picture_can_be_drawn_again_from_what_it_says(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = tiny_variants["bnb-nf4"]
    file, other = tmp_path / "a.png", tmp_path / "b.png"
    words = ("--prompt", PROMPT, "--steps", 2, "--seed", 7, "--guidance", 2.5, "--device", "cpu")
    said = answer("generate", variant.root, *words, "-o", file)
    recipe = read_recipe(file)
    assert recipe is not None
    assert (recipe.prompt, recipe.seed, recipe.steps, recipe.guidance) == (PROMPT, 7, 2, 2.5)
    assert recipe.model == variant.name and recipe.mode == "plain"
    assert recipe.manifest_sha256 == hash_file(variant.root / MANIFEST_NAME).sha256
    assert recipe.execution["transformer"].mode == "decoded"
    assert said["prompt"] == PROMPT and said["picture"] == str(file)
    again(recipe, variant, other)
    assert np.array_equal(pixels(file), pixels(other))
    again(recipe.model_copy(update={"seed": 8}), variant, other)
    assert not np.array_equal(pixels(file), pixels(other))


def test_source_says_what_it_is_and_nothing_if_asked(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    settings = load_settings(tiny_checkpoint.root, {"steps": 1, "prompts": (PROMPT,)})
    told, silent = tmp_path / "told.png", tmp_path / "silent.png"
    generate(tiny_checkpoint, settings, told)
    generate(tiny_checkpoint, settings, silent, with_recipe=False)
    recipe = read_recipe(told)
    assert recipe is not None
    assert recipe.model == "tiny-flux" and recipe.manifest_sha256 is None
    assert read_recipe(silent) is None
    assert CHUNK.encode() not in silent.read_bytes()
    assert np.array_equal(pixels(told), pixels(silent))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["silent.png", "told.png"]


def test_lone_component_cannot_draw(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_checkpoint.root / "transformer")
    (variant,) = quantize(source, ["torchao-int8"], tmp_path / "out")
    done = fluxconv("generate", variant.root, "--prompt", "x", "-o", tmp_path / "p.png")
    assert done.returncode == 3
    assert "only a whole pipeline can draw" in done.stderr
    assert not (tmp_path / "p.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--offload", "model", "--device", "cpu"], 4, "this runs on a CPU"),
        (["--offload", "some"], 2, "--offload"),
        (["--revision", "main"], 2, "only a Hub repository has revisions"),
        (["--steps", "0"], 2, "--steps"),
    ],
)
def test_bad_words_get_one_sentence(
    words: list[str], code: int, said: str, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    root = tiny_variants["torchao-int8"].root
    done = fluxconv("generate", root, "--prompt", "x", "-o", tmp_path / "p.png", *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
