"""Reading recipes: all that is wrong with one, at once, each with its line, in bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recipe_files import HEAD, complaints, written

from fluxconv.converters.errors import BadInput
from fluxconv.recipes.problems import BadRecipe
from fluxconv.recipes.reading import read_leniently, read_recipe
from fluxconv.recipes.recipe import Recipe

MANY = """\
checkpoints:
  - a/b
  - id: 12345
backends:
  - bnb-nf4
  - bnb-nf4
  - {backend: gguf-q8_0, effort: fastest, checkpoints: [c/d]}
  - bakend: gguf-q8_0
device: gpu
namespace: me
output: [a]
output: b
validation:
  steps: 8.5
  height: 65
  width: "512"
  seeds: [1, 1, -2]
performance: {modes: plain}
executor:
card: {blind_test: x}
"""


def test_everything_that_is_wrong_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    assert complaints(tmp_path, MANY) == [
        "3: checkpoints[1].id: must be text, and is 12345; put it in quotes",
        "6: backends[1]: bnb-nf4 is named twice, set alike",
        "7: backends[2].effort: 'fastest' is not one of fast, best",
        "8: backends[3]: the key 'backend' is missing",
        "8: backends[3]: unknown key 'bakend'; did you mean backend?",
        "9: device: 'gpu' is not one of auto, cpu, cuda",
        "10: 'namespace' belongs under `publication:`",
        "11: output: must be text",
        "12: the key 'output' is given twice, first in line 11",
        "14: validation.steps: must be a whole number, and is 8.5",
        "15: validation.height: must be a multiple of 8, and is 65",
        "16: validation.width: must be a whole number, and is '512'",
        "17: validation.seeds[2]: must be at least 0, and is -2",
        "17: validation.seeds[1]: '1' is given twice",
        "18: performance.modes: must be a list: each of its values behind a dash on a line of its "
        "own, or all in [ ]",
        "19: executor: is empty; write what belongs under it, or remove it",
        "20: card: unknown key 'blind_test'; did you mean blind_tests?",
    ]


def test_what_is_left_of_a_wrong_recipe_can_be_checked_further(tmp_path: Path) -> None:
    left = read_leniently(written(tmp_path, MANY))
    assert [row.id for row in left.recipe.checkpoints] == ["a/b"]
    assert left.recipe.device == "auto"
    assert left.lines["backends", 0] == 5


def test_an_error_is_one_with_every_line_in_it(tmp_path: Path) -> None:
    file = written(tmp_path, HEAD + "devise: cpu\noutput: 3\n")
    with pytest.raises(BadRecipe) as caught:
        read_recipe(file)
    assert isinstance(caught.value, BadInput)
    assert caught.value.exit_code == 3
    assert str(caught.value).splitlines() == [
        "2 problems",
        f"{file}:3: unknown key 'devise'; did you mean device?",
        f"{file}:4: output: must be text, and is 3; put it in quotes",
    ]


CONTRADICTIONS = {
    "twice": ("backends: [gguf-q8_0, gguf-q8_0]", "named twice, set alike"),
    "twice, spelled otherwise": (
        "backends: [gguf-q2_k, {backend: gguf-q2_k, options: {}}]",
        "named twice, set alike",
    ),
    "two homes for a setting": (
        "backends: [{backend: gguf-q2_k, options: {effort: fast}}]",
        "give `effort:` in the row itself",
    ),
    "no such checkpoint": (
        "backends: [bnb-nf4, {backend: gguf-q2_k, checkpoints: [a/c]}]",
        "the recipe has no checkpoint 'a/c'; did you mean a/b?",
    ),
    "an address without Ray": ("executor: {address: auto}", "only `kind: ray` has an address"),
    "a mode twice": ("performance: {modes: [plain, plain]}", "'plain' is given twice"),
}


@pytest.mark.parametrize("key", CONTRADICTIONS)
def test_what_cannot_be_meant_is_refused(key: str, tmp_path: Path) -> None:
    line, sentence = CONTRADICTIONS[key]
    head = "checkpoints: [a/b]\n" if line.startswith("backends") else HEAD
    (said,) = complaints(tmp_path, head + line + "\n")
    assert sentence in said
    assert said.startswith(f"{len(head.splitlines()) + 1}: ")


def test_two_checkpoints_of_one_name_are_refused(tmp_path: Path) -> None:
    text = "checkpoints:\n- a/FLUX\n- {id: b/FLUX, revision: v2}\n- ./x/FLUX.safetensors\n- a/FLUX"
    said = complaints(tmp_path, text + "\nbackends: [bnb-nf4]\n")
    assert [each.split(":")[0] for each in said] == ["3", "4", "5"]
    assert all("would have the names of those of a/FLUX" in each for each in said[:2])
    assert "a/FLUX is named twice" in said[2]


def test_a_checkpoint_that_no_backend_is_for_is_refused(tmp_path: Path) -> None:
    text = "checkpoints: [a/b, c/d]\nbackends: [{backend: bnb-nf4, checkpoints: [a/b]}]\n"
    assert complaints(tmp_path, text) == ["1: checkpoints[1]: c/d: no backend is for it"]


def test_a_recipe_made_in_python_is_held_to_the_same(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="named twice, set alike"):
        Recipe.model_validate({"checkpoints": ["a/b"], "backends": ["bnb-nf4", "bnb-nf4"]})


def test_words_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = (
        "checkpoints: [{id: a/b, revision: 2024-01-01}]\n"
        "backends: [{backend: bnb-nf4, options: {x: 010, y: 1:30, z: 0o10, on: 1e3}}]\n"
        "publication: {namespace: no, gated: off, replace: true}\n"
    )
    recipe = read_recipe(written(tmp_path, text)).recipe
    assert recipe.checkpoints[0].revision == "2024-01-01"
    assert recipe.backends[0].options == {"x": 10, "y": "1:30", "z": 8, "on": 1000.0}
    assert recipe.publication is not None
    assert (recipe.publication.namespace, recipe.publication.gated) == ("no", "off")


def test_anchors_and_merge_keys_mean_what_they_do_elsewhere(tmp_path: Path) -> None:
    text = (
        "checkpoints: [a/b]\nbackends:\n- &x {backend: gguf-q2_k, effort: fast}\n"
        "- {<<: *x, backend: gguf-q3_k_s}\n- *x\n"
    )
    assert complaints(tmp_path, text) == ["5: backends[2]: gguf-q2_k is named twice, set alike"]
    kept = read_leniently(tmp_path / "release.yaml").recipe.backends
    assert [(row.backend, row.effort) for row in kept] == [
        ("gguf-q2_k", "fast"),
        ("gguf-q3_k_s", "fast"),
    ]


LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c + 1, c + 1, *[c] * 9)
    for c in range(97, 110)
)
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "None: is empty; `fluxconv recipe init` writes one to begin with"),
    "comments": (b"# nothing\n", "None: is empty;"),
    "a list": (b"- a\n", "1: must hold keys and values"),
    "a word": (b"hello", "1: must hold keys and values"),
    "a tab": (b"checkpoints:\n\t- a\n", "2: is not valid YAML: a line begins with a tab"),
    "an open bracket": (b"checkpoints: [a/b\nbackends: [x]\n", "2: is not valid YAML"),
    "no alias": (b"a: *b\n", "1: is not valid YAML: found undefined alias 'b'"),
    "two documents": (b"a: 1\n---\nb: 2\n", "2: holds several documents"),
    "a tag": (b"a: !!python/object:os.system x\n", "1: has the tag "),
    "Latin-1": (b"# \xe9\n", "None: is not UTF-8 text; save it as UTF-8"),
    "NUL": (b"a: 1\nb: \0\n", "2: holds '\\x00', which is no text"),
    "a terminal code": (b"\x1b[31m: 1\n", "1: holds '\\x1b', which is no text"),
    "a billion laughs": (LAUGHS, "stands for more than 20000 values"),
    "itself": (b"a: &a\n  b: *a\n", "2: an alias stands within what it stands for"),
    "itself in a list": (b"checkpoints: &a [*a]\n", "1: an alias stands within"),
    "depth": (b"[" * 100_000, "1: is nested too deeply for a recipe"),
    "depth of keys": (b"{a: " * 50_000, "1: is nested too deeply for a recipe"),
    "length": (b"#" * 300_000, "None: has 300,000 bytes"),
    "digits": (b"a: " + b"9" * 5000, "1: '99999"),
    "a merge of nothing": (b"<<: 3\n", "1: `<<` takes an alias of keys and values"),
}


@pytest.mark.parametrize("key", UNREADABLE)
def test_what_is_no_recipe_is_refused_in_one_sentence(key: str, tmp_path: Path) -> None:
    data, sentence = UNREADABLE[key]
    began = time.process_time()
    (said,) = complaints(tmp_path, data)
    assert sentence in said
    assert "\n" not in said
    assert time.process_time() - began < 5


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, sentence in {
        "": "is a folder; give the recipe's file",
        "none.yaml": "no such file; `fluxconv recipe init` writes one",
        "pipe": "is not a regular file",
        "loop": "cannot be read: Too many levels",
    }.items():
        with pytest.raises(BadRecipe, match=sentence):
            read_recipe(tmp_path / name)
    with pytest.raises(BadRecipe, match="cannot be read"):
        read_recipe("a\0b")


def test_a_mark_at_the_start_and_other_line_ends_are_read(tmp_path: Path) -> None:
    file = written(tmp_path, b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode())
    assert read_recipe(file).lines["backends",] == 2


TOKEN = "hf_" + "a1B2" * 9
SECRETS = {
    f"# {TOKEN}": "holds a token",
    f"output: {TOKEN}": "holds a token",
    "output: s3://me:sesame@bucket/x": "holds a password in an address",
    "card: {sign: '-----BEGIN EC PRIVATE KEY-----'}": "holds a private key",
}


@pytest.mark.parametrize("line", SECRETS)
def test_secrets_are_refused_and_never_repeated(line: str, tmp_path: Path) -> None:
    file = written(tmp_path, HEAD + "devise: cpu\n" + line + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "fluxconv.commands", "recipe", "check", str(file), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert f"release.yaml:4: {SECRETS[line]}" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert "sesame" not in done.stdout + done.stderr


def test_the_token_of_this_machine_is_found_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "correct-horse-battery")
    (said,) = complaints(tmp_path, HEAD + "output: correct-horse-battery\n")
    assert said.startswith("3: holds a token")
    assert "horse" not in said


def test_the_environment_is_not_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "elsewhere")
    file = read_recipe(written(tmp_path, HEAD + "output: $WHERE/~/x\n"))
    assert file.path(file.recipe.output) == tmp_path / "$WHERE/~/x"


def test_home_is_expanded_and_a_user_whom_there_is_not_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    file = read_recipe(written(tmp_path, HEAD + "output: ~/x\n"))
    assert file.path(file.recipe.output) == Path("/somewhere/x")
    assert file.path("~nobody-of-this-name/x") == tmp_path / "~nobody-of-this-name" / "x"
