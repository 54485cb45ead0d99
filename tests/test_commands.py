"""The command line as a user meets it: a process, its exit code, its stdout and stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fluxconv.converters import Checkpoint, Variant

COMMANDS = (
    *("backends", "inspect", "plan", "quantize", "dequantize", "validate"),
    *("generate", "card", "push", "download", "hub", "importance", "benchmark", "recommend"),
)


def fluxconv(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "fluxconv.commands", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **env})


def answer(*arguments: object, **env: str) -> Any:
    """The JSON object that a command prints."""
    done = fluxconv(*arguments, "--json", **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = fluxconv(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 4


def test_plan_tells_the_exact_bytes(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    wanted = [word for name in tiny_variants for word in ("--backend", name)]
    planned = answer("plan", tiny_checkpoint.root, *wanted)
    assert len(planned["variants"]) == len(tiny_variants)
    for item in planned["variants"]:
        variant = tiny_variants[item["backend"]]
        assert item["bits_per_weight"] == variant.manifest.bits_per_weight
        for component in item["components"].values():
            for file, size in component["files"].items():
                assert (variant.root / file).stat().st_size == size
        assert item["carried_bytes"] == sum(
            (variant.root / path).stat().st_size for path in tiny_checkpoint.carried_files()
        )


def test_plan_says_why_of_every_tensor(tiny_checkpoint: Checkpoint) -> None:
    planned = answer("plan", tiny_checkpoint.root, "--backend", "bnb-nf4", "--tensors")
    tensors = {
        tensor["name"]: tensor["reason"]
        for component in planned["variants"][0]["components"].values()
        for tensor in component["tensors"]
    }
    assert tensors["proj_out.weight"] == "quantized"
    assert tensors["encoder.block.0.layer.1.DenseReluDense.wo.weight"].startswith("kept: T5 wo")
    assert len(tensors) == sum(len(c.tensors) for c in tiny_checkpoint.components.values())


def test_quantize_one_component_leaves_a_whole_pipeline(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made = answer(
        "quantize", tiny_checkpoint.root, "--backend", "torchao-int8", "--component",
        "text_encoder_2", "-o", tmp_path,
    )  # fmt: skip
    (variant,) = made["variants"]
    source = tiny_checkpoint.root / "transformer" / "diffusion_pytorch_model.safetensors"
    copy = Path(variant["path"]) / "transformer" / "diffusion_pytorch_model.safetensors"
    assert copy.read_bytes() == source.read_bytes()
    found = answer("inspect", variant["path"])
    assert [c["name"] for c in found["components"]] == ["text_encoder_2"]


def test_inspect_tells_what_things_are(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    source = answer("inspect", tiny_checkpoint.root)
    assert source["kind"] == "pipeline"
    assert {c["quantization"] for c in source["components"]} == {"none"}
    for name, variant in tiny_variants.items():
        found = answer("inspect", variant.root)
        assert found["kind"] == "variant"
        assert {c["quantization"] for c in found["components"]} == {name}
    (weights,) = answer("inspect", next(tiny_variants["gguf-q8_0"].root.glob("*lux-Q8_0.gguf")))[
        "components"
    ]
    assert weights["quantization"] == "flux Q8_0"
    # One component of it, as anybody's tool would have saved it.
    folder = tiny_variants["bnb-nf4"].root / "transformer"
    (component,) = answer("inspect", folder)["components"]
    assert component["quantization"] == "bitsandbytes nf4"


def test_dequantized_checkpoint_can_be_quantized_again(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = tiny_variants["gguf-q8_0"]
    answer("dequantize", variant.root, "-o", tmp_path / "plain")
    answer("quantize", tmp_path / "plain", "--backend", "gguf-q8_0", "-o", tmp_path / "again")
    for file in variant.root.glob("*.gguf"):
        # Q8_0 of its own decoding is itself, but the source's name stands in the metadata.
        again = tmp_path / "again" / "plain-gguf-q8_0" / file.name.replace("tiny-flux", "plain")
        assert again.is_file()
        from fluxconv.converters.stored import read_entries

        for one, two in zip(read_entries(file), read_entries(again), strict=True):
            if one.dtype != "Q8_0":
                assert one.read().equal(two.read()), one.name


def test_generate_draws_a_picture(tiny_variants: dict[str, Variant], tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "new" / "picture.png"
    words = ("generate", tiny_variants["gguf-q8_0"].root, "--prompt", "a red circle on a blue "
             "background at the center", "--steps", "2", "-o", picture)  # fmt: skip
    said = answer(*words)
    assert said["execution"]["transformer"]["mode"] == "decoded"
    with Image.open(picture) as image:
        assert image.size == (64, 64)
        assert len(image.getcolors(64 * 64) or range(9999)) > 8
    again = fluxconv(*words)
    assert again.returncode == 3
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["plan", "{tiny}"], 2, "--backend"),
        (["plan", "{tiny}", "--backend", "bnb-nf5"], 2, "did you mean bnb-nf4"),
        (["plan", "/no/such/folder", "--backend", "bnb-nf4"], 3, "no such folder"),
        (["plan", "{tests}", "--backend", "bnb-nf4"], 3, "no Flux checkpoint here"),
        (
            ["plan", "{tiny}", "--backend", "bnb-nf4", "--component", "vae"],
            2,
            "--component vae: is carried over as it is",
        ),
        (["inspect", "/no/such/folder"], 3, "no such file"),
        (["quantize", "{tiny}", "--backend", "bnb-nf4", "-o", "/proc/nowhere"], 3, "/proc"),
        (["quantize", "{tiny}", "--backend", "bnb-nf4", "-o", "{tiny}"], 3, "lies in the source"),
        (["plan", "{tiny}", "--backend", "bnb-nf4", "--revision", "main"], 2, "is a folder"),
        (["generate", "{variant}", "--prompt", "x", "--height", "63"], 2, "multiple of 8"),
        (["generate", "{variant}", "--prompt", "x", "--seed", "-1"], 2, "--seed"),
        (["generate", "{variant}", "--prompt", "x", "-o", "/proc/x/p.png"], 3, "cannot be written"),
        (["generate", "{variant}", "--prompt", "x", "-o", "p.jpg"], 2, ".png"),
        (["dequantize", "{variant}", "-o", "{tmp}"], 3, "exists; remove it"),
        (["validate", "{tiny}"], 3, "is not a variant"),
        (["validate", "{variant}"], 3, "--reference"),
        (["card", "{variant}"], 1, "run `fluxconv validate` first"),
        (["push", "{variant}", "--namespace", "me"], 1, "run `fluxconv validate` first"),
        (["hub", "serve", "{tmp}", "--host", "0.0.0.0"], 3, "loopback"),
    ],
)
def test_bad_words_get_one_sentence_and_the_right_code(
    words: list[str],
    code: int,
    said: str,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path: Path,
) -> None:
    places = {
        "tiny": tiny_checkpoint.root,
        "tests": Path(__file__).parent,
        "variant": tiny_variants["bnb-nf4"].root,
        "tmp": tmp_path,
    }
    done = fluxconv(*(word.format(**places) for word in words))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_json_error_is_one_object_on_stdout(tmp_path: Path) -> None:
    done = fluxconv("plan", tmp_path, "--backend", "bnb-nf4", "--json")
    error = json.loads(done.stdout)["error"]
    assert (error["type"], error["exit_code"]) == ("NotACheckpoint", 3)
    assert done.returncode == 3


def test_quiet_is_quiet(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    done = fluxconv(
        "quantize", tiny_checkpoint.root, "--backend", "gguf-q8_0", "-o", tmp_path, "-q"
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_reader_that_goes_away_is_no_error(tiny_checkpoint: Checkpoint) -> None:
    words = f"{sys.executable} -m fluxconv.commands plan {tiny_checkpoint.root}"
    script = f"{words} --backend bnb-nf4 --tensors | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in done.stderr
