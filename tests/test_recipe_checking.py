"""Checking recipes on this machine: everything that can be known of a release without work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from recipe_files import TINY, checked, findings

from fluxconv.converters import Checkpoint, Variant, plan, quantize
from fluxconv.converters.backends import all_backends, get_backend
from fluxconv.recipes.checking import check
from fluxconv.recipes.checks.findings import Findings
from fluxconv.recipes.checks.output import check_room
from fluxconv.recipes.problems import BadRecipe
from fluxconv.recipes.recipe import Recipe
from fluxconv.recipes.recipe_file import RecipeFile

GOOD = "checkpoints: [TINY]\nbackends: [bnb-nf4, gguf-q8_0]\ndevice: cpu\n"


def test_sizes_are_exact_and_nothing_is_written(
    tmp_path: Path, tiny_checkpoint: Checkpoint
) -> None:
    found = checked(tmp_path, GOOD)
    assert not found.problems
    made = quantize(tiny_checkpoint, ["bnb-nf4", "gguf-q8_0"], tmp_path / "made")
    # The text that belongs to no weights and is not carried over is not counted: two configs.
    own = {"transformer/config.json", "text_encoder_2/config.json"}
    sizes = [
        sum(file.size for name, file in each.manifest.files.items() if name not in own)
        for each in made
    ]
    assert [each.plan.nbytes for each in found.variants if each.plan] == sizes
    assert found.totals.variants == found.totals.to_write == sum(sizes)
    assert [each.name for each in found.variants] == [each.name for each in made]
    assert found.checkpoints[0].licence == "Apache License 2.0"
    assert not (tmp_path / "out").exists()


def test_the_widest_pass_is_counted_with_all_its_variants(tmp_path: Path) -> None:
    alone = checked(tmp_path, GOOD.replace("bnb-nf4, ", "")).totals.pass_memory
    both = checked(tmp_path, GOOD).totals.pass_memory
    assert alone is not None
    assert both is not None
    assert alone < both < 2 * alone


def test_paths_are_those_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(TINY, tmp_path / "inner" / "tiny-flux")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = checked(tmp_path, GOOD.replace("TINY", "inner/tiny-flux"))
    assert not found.problems
    assert found.checkpoints[0].id == str(tmp_path / "inner" / "tiny-flux")
    assert found.output == tmp_path / "out"


def test_a_folder_where_the_command_was_given_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TINY, tmp_path / "here" / "owner" / "tiny-flux")
    monkeypatch.chdir(tmp_path / "here")
    said = findings(tmp_path, GOOD.replace("TINY", "owner/tiny-flux"))
    assert "1: owner/tiny-flux is not beside the recipe, but in the current folder" in said[0]


#: What is wrong with a recipe that is otherwise GOOD: the line that is added, and what is said.
WRONG = {
    "output: TINY/out": "lies in the source",
    "output: TINY": "lies in the source",
    "output: 'nosuch://[x'": "nosuch:// is no file system",
    "output: nosuch://bucket/x": "nosuch:// is no file system that fsspec knows",
    "output: release.yaml": "is no folder",
    "output: release.yaml/out": "is no folder",
    "validation: {thresholds: none.yaml}": "none.yaml: no such file",
    "validation: {prompts: none.txt}": "none.txt: no such file",
    "validation: {offload: model}": "moves weights between main memory and a GPU",
    "validation: {cache: release.yaml}": "release.yaml: is no folder",
    "performance: {modes: [plain, offlod-model]}": "did you mean offload-model",
    "card: {sign: none.pem}": "none.pem: no such file; it is to be a private key",
    "card: {sign: release.yaml}": "release.yaml: is no private key to sign with (",
    "card: {blind_tests: [none.json]}": "none.json: no such file",
    "publication: {namespace: 'a/b'}": "'a/b' can be no user or organisation of the Hub",
    "publication: {namespace: me, collection: '" + "x" * 61 + "'}": "has 61 characters",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_does_not_fit_the_world_is_a_problem_at_its_line(line: str, tmp_path: Path) -> None:
    (said,) = findings(tmp_path, GOOD + line + "\n")
    assert said.startswith("4: ")
    assert WRONG[line] in said


#: Rows of `backends` that some backend refuses, and what is said.
ROWS = {
    "bnb-nf5": "unknown backend 'bnb-nf5'; did you mean bnb-nf4",
    "{backend: bnb-nf4, options: {double_qant: true}}": "did you mean double_quant?",
    "{backend: bnb-nf4, options: {double_quant: maybe}}": "'maybe' is not one of true, false",
    "{backend: torchao-int8, skip: ['(']}": "'(' is not a regular expression",
    "{backend: torchao-int8, skip: [nowhere]}": "'nowhere' matches no module of tiny-flux",
    "{backend: bnb-nf4, effort: fast}": "only GGUF backends with blocks search; remove `effort`",
    "{backend: gguf-q2_k, importance: no.dat}": "no.dat: no such file",
    "{backend: gguf-q8_0, effort: fast}": "`effort` changes no byte of its files; remove it",
    "{backend: torchao-int4, options: {packing: plain, algorithm: hqq}}": "tile_packed_to_4d only",
    "torchao-int4": "torchao-int4 quantizes on cuda, not on cpu",
}


@pytest.mark.parametrize("row", ROWS)
def test_what_a_backend_refuses_is_a_problem_at_its_row(row: str, tmp_path: Path) -> None:
    text = f"device: cpu\ncheckpoints: [TINY]\nbackends:\n- torchao-int8\n- {row}\n"
    said = findings(tmp_path, text)
    assert [each for each in said if each.startswith("5: ") and ROWS[row] in each], said
    assert all(each.startswith("5: ") for each in said)


def test_every_wrong_setting_of_a_backend_is_told(tmp_path: Path) -> None:
    text = "checkpoints: [TINY]\nbackends:\n- backend: bnb-nf4\n  options:\n    a: 1\n    b: 2\n"
    said = findings(tmp_path, text + "  effort: fast\n  skip: ['(']\n")
    assert [each.partition(":")[0] for each in said] == ["5", "6", "7", "8"]


def test_all_problems_of_file_and_world_come_at_once(tmp_path: Path) -> None:
    text = "checkpoints: [none]\nbackends: [bnb-nf5]\ndevise: cpu\nvalidation: {steps: x}\n"
    said = findings(tmp_path, text + "card: {sign: none.pem}\n")
    assert [each.partition(":")[0] for each in said] == ["1", "2", "3", "4", "5"]


#: Rows of `checkpoints`, what is done to the copy of the tiny Flux before, and what is said.
SOURCES = {
    "nowhere": "nowhere: no such folder or file",
    "{id: copy, revision: main}": "`revision:`: ",
    "{id: copy, base: copy/vae}": "is a whole pipeline and needs no other",
    "{id: copy/vae}": "copy/vae",
    "{id: copy/transformer}": "is a lone component, and only a whole pipeline can draw",
    "{id: copy, source_id: no id}": "'no id' is no Hub repository",
}


@pytest.mark.parametrize("row", SOURCES)
def test_a_checkpoint_that_is_none_is_a_problem_at_its_row(row: str, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "copy")
    said = findings(tmp_path, f"backends: [torchao-int8]\ncheckpoints:\n- {row}\n")
    assert all(each.startswith("3: ") for each in said)
    assert any(SOURCES[row] in each for each in said), said
    assert not any("--" in each for each in said)  # words of commands mean nothing here


def test_a_source_without_a_licence_cannot_be_published(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").unlink()
    (said,) = findings(tmp_path, "checkpoints: [copy]\nbackends: [torchao-int8]\n")
    assert said.startswith("1: ")
    assert "states no licence" in said
    assert "again" not in said  # nothing was made yet


def test_what_the_recipe_makes_cannot_be_what_it_is_made_of(
    tmp_path: Path, tiny_variants: dict[str, Variant]
) -> None:
    made = tmp_path / "out" / "tiny-flux-gguf-q8_0"
    shutil.copytree(tiny_variants["gguf-q8_0"].root, made)
    text = (
        "checkpoints:\n- TINY\n- {id: out/tiny-flux-gguf-q8_0, allow_requantize: true}\n"
        "backends: [gguf-q8_0]\ndevice: cpu\n"
    )
    said = findings(tmp_path, text)
    assert any(each.startswith("3: ") and "is what this recipe is to make" in each for each in said)


def test_variants_that_are_there_cost_nothing_and_others_are_in_the_way(
    tmp_path: Path, tiny_variants: dict[str, Variant]
) -> None:
    for name in ("bnb-nf4", "gguf-q8_0"):
        shutil.copytree(tiny_variants[name].root, tmp_path / "out" / f"tiny-flux-{name}")
    found = checked(tmp_path, GOOD)
    assert not found.problems
    assert found.totals.to_write == 0

    manifest = tmp_path / "out" / "tiny-flux-bnb-nf4" / "fluxconv.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"device": "cuda"}))
    (tmp_path / "out" / "tiny-flux-gguf-q8_0" / "fluxconv.json").unlink()
    said = findings(tmp_path, GOOD + "output: out\n")
    assert [each.partition(":")[0] for each in said] == ["4", "4"]
    assert "exists, and its device differ" in said[0]
    assert "exists and is no variant" in said[1]


def test_settings_that_are_the_defaults_make_no_second_variant(tmp_path: Path) -> None:
    text = "checkpoints: [TINY]\nbackends:\n- gguf-q2_k\n- {backend: gguf-q2_k, effort: best}\n"
    (said,) = findings(tmp_path, text)
    assert said == "4: two variants would be called tiny-flux-gguf-q2_k; remove one"


def test_names_that_the_hub_would_take_for_one_are_refused(tmp_path: Path) -> None:
    for name in ("my flux", "my-flux"):
        shutil.copytree(TINY, tmp_path / name)
    text = "checkpoints: [my flux, my-flux]\nbackends: [torchao-int8]\n"
    (said,) = findings(tmp_path, text + "publication: {namespace: me}\n")
    assert "would both be published as me/my-flux-torchao-int8" in said


def test_a_disk_without_room_is_a_problem_before_any_work(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"checkpoints": [str(TINY)], "backends": ["bnb-nf4"]})
    file = RecipeFile(recipe, "release.yaml", tmp_path, {("output",): 7})
    free = shutil.disk_usage(tmp_path).free
    found = Findings(file)
    check_room(tmp_path / "out", free // 2, 0, found)
    assert not found.problems
    check_room(tmp_path / "out", 2 * free, 0, found)
    (problem,) = found.problems
    assert (problem.line, problem.exit_code) == (7, 3)
    assert "GB are needed, and" in problem.sentence


def test_a_missing_device_has_its_own_exit_code(tmp_path: Path) -> None:
    text = "checkpoints: [TINY]\nbackends: [torchao-int4]\ndevice: cpu\n"
    with pytest.raises(BadRecipe) as caught:
        checked(tmp_path, text).require()
    assert caught.value.exit_code == 4


def test_devices_of_a_cluster_are_not_those_of_this_machine(tmp_path: Path) -> None:
    text = "checkpoints: [TINY]\nbackends: [torchao-int4]\ndevice: cuda\nexecutor: {kind: ray}\n"
    assert not checked(tmp_path, text).problems


def test_settings_are_given_as_plain_data_that_make_the_backend_again(tmp_path: Path) -> None:
    text = (
        "checkpoints: [TINY]\nbackends:\n"
        "- {backend: bnb-nf4, options: {double_quant: true}, skip: [proj_out]}\n"
        "- {backend: gguf-q4_k_s, effort: fast, tensor_types: [img_mlp=Q8_0]}\n"
    )
    found = checked(tmp_path, text)
    assert not found.problems
    for variant in found.variants:
        given = json.loads(json.dumps(variant.made_by.given))
        assert get_backend(variant.made_by.row.backend).configured(given) == variant.made_by.backend


def test_every_backend_can_stand_in_a_recipe(tmp_path: Path, tiny_checkpoint: Checkpoint) -> None:
    recipe = Recipe.model_validate(
        {"checkpoints": [str(TINY)], "backends": list(all_backends()), "output": str(tmp_path)}
    )
    found = check(recipe)
    planned = plan(tiny_checkpoint, list(all_backends()))
    assert [v.plan.nbytes for v in found.variants if v.plan] == [each.nbytes for each in planned]


def test_parts_need_a_folder(tmp_path: Path) -> None:
    found = checked(tmp_path, GOOD + "output: ftp://host/out\nexecutor: {parts: 2}\n")
    assert [p.key for p in found.problems if "all workers see" in p.sentence] == ["executor.parts"]
