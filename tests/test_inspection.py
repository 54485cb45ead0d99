"""`inspect` says what our variants are, and what folders and configs of any kind hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from inspecting import answer, only
from safetensors.torch import save_file

from fluxconv.commands.main import cli
from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.backends import all_backends, get_backend
from fluxconv.converters.dtypes import FLOATS
from fluxconv.converters.errors import FluxconvError, NotACheckpoint
from fluxconv.converters.inspection import inspect
from fluxconv.converters.planning import plan

T5 = "text_encoder_2"

# Variants of our own -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", list(all_backends()))
def test_every_variant_says_library_scheme_and_bits(
    backend: str, tiny_variants: dict[str, Variant]
) -> None:
    """Found from the files, these agree with what the manifest records."""
    variant = tiny_variants[backend]
    found = inspect(variant.root)
    assert found.kind == "variant"
    assert [part.name for part in found.components] == list(variant.manifest.components)
    for part in found.components:
        record = variant.manifest.components[part.name]
        assert part.quantization == backend
        assert part.recognised is not None
        if backend != "fp8-layerwise":  # nothing in the files names the library
            assert part.recognised.library == variant.backend.requirement.package
        word = {"fp8": "float8"}.get(backend.split("-")[1], backend.split("-")[1])
        assert ("float8" if backend == "fp8-layerwise" else word) in part.recognised.scheme.lower()
        assert part.bits_per_weight == pytest.approx(record.bits_per_weight, abs=1e-4)


@pytest.mark.parametrize("backend", list(all_backends()))
def test_modules_in_high_precision_are_those_that_were_kept(
    backend: str, tiny_variants: dict[str, Variant]
) -> None:
    variant = tiny_variants[backend]
    plans = variant.component_plans()
    for part in inspect(variant.root).components:
        tensors = plans[part.name].tensors
        kept = {
            tensor.name.removesuffix(".weight")
            for tensor in tensors
            if not tensor.quantized and len(tensor.target.shape) > 1
        }
        # Where all are plain, as in a GGUF file of bf16, none is kept beside others.
        packed = any(stored.dtype not in FLOATS for tensor in tensors for stored in tensor.stored)
        assert set(part.kept) == (kept if packed else set())


@pytest.mark.parametrize("packing", ["tile_packed_to_4d", "plain"])
def test_torchao_int4_from_its_header(
    packing: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Its weights can be made on a GPU alone; what tells the scheme is in the header."""
    backend = get_backend("torchao-int4").configured({"packing": packing, "group_size": 32})
    (planned,) = plan(tiny_checkpoint, [backend])
    for each in planned.components:
        (layout,) = each.files
        file = tmp_path / layout.name
        file.parent.mkdir()
        with file.open("wb") as stream:
            stream.write(layout.header)
            stream.truncate(layout.size)
        config = {**each.config, "quantization_config": each.quantization_config}
        (file.parent / "config.json").write_text(json.dumps(config))
        found = only(file.parent)
        assert found.quantization == "torchao Int4WeightOnlyConfig"
        assert found.recognised is not None
        assert found.recognised.settings["group_size"] == 32
        assert found.recognised.settings["packing"] == packing.upper()
        assert found.weights == sum(spec.numel for spec in each.specs)
        assert only(file).weights == found.weights


def test_a_component_of_a_variant_is_known_without_the_manifest(
    tiny_variants: dict[str, Variant],
) -> None:
    found = only(tiny_variants["bnb-nf4"].root / "transformer")
    assert found.quantization == "bitsandbytes nf4"
    assert found.recognised is not None
    assert found.recognised.settings["block_size"] == 64
    assert found.recognised.settings["compute_dtype"] == "bfloat16"
    assert only(tiny_variants["fp8-layerwise"].root / "transformer").quantization == (
        "torch float8_e4m3fn"
    )


# Configs and folders of all kinds ----------------------------------------------------------------


def component(folder: Path, config: Any, **tensors: torch.Tensor) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors or {"a.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    return folder


def test_a_method_nobody_knows_is_named_with_its_settings(tmp_path: Path) -> None:
    said = {"quant_method": "next-year", "bits": 3, "deep": {"a": [1, None]}, "absent": None}
    folder = component(tmp_path / "x", {"quantization_config": said, "architectures": ["Foo"]})
    found = only(folder)
    assert found.title == "Foo"
    assert found.recognised is not None
    assert found.recognised.library == "next-year"
    assert found.recognised.settings == {"bits": 3, "deep": {"a": [1, None]}}
    assert found.notes == ("the weights are stored plain, and quantized when they are loaded",)


def test_sdnq_may_have_its_config_in_a_file_of_its_own(tmp_path: Path) -> None:
    packed = {"a.weight": torch.zeros(8, dtype=torch.uint8), "a.scale": torch.zeros(4, 1)}
    folder = component(tmp_path / "x", {"_class_name": "FluxTransformer2DModel"}, **packed)
    said = {"quant_method": "sdnq", "weights_dtype": "uint4", "group_size": 0}
    (folder / "quantization_config.json").write_text(json.dumps(said))
    found = only(folder)
    assert found.quantization == "sdnq uint4"
    assert found.title == "Flux transformer"
    assert found.bits_per_weight is None


def test_weights_in_pickles_are_named_and_left_closed(tmp_path: Path) -> None:
    said = {"quant_method": "torchao", "quant_type": "int8wo"}
    folder = component(tmp_path / "x", {"quantization_config": said})
    (folder / "model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    found = only(folder)
    assert found.quantization == "torchao int8wo"
    assert [file.name for file in found.unopened] == ["diffusion_pytorch_model.bin"]
    assert "pickle" in found.notes[0]
    with pytest.raises(NotACheckpoint, match="pickle"):
        inspect(folder / "diffusion_pytorch_model.bin")


def test_a_pipeline_shows_each_component(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """One quantized, as somebody else would publish it: no manifest."""
    place = Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "pipe"))
    shutil.rmtree(place / "transformer")
    shutil.copytree(tiny_variants["torchao-int8"].root / "transformer", place / "transformer")
    found = answer(place)
    assert found["kind"] == "pipeline"
    assert {part["name"]: part["quantization"] for part in found["components"]} == {
        "text_encoder": "none",
        "text_encoder_2": "none",
        "transformer": "torchao Int8WeightOnlyConfig",
        "vae": "none",
    }


HOSTILE: tuple[Any, ...] = (
    *(None, [], 5, "x", {}, {"quant_method": None}, {"quant_method": ["bitsandbytes"]}),
    {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": {"a": 1}},
    {"quant_method": "torchao", "quant_type": {"default": [1]}},
    {"quant_method": "torchao", "quant_type": {"default": {"_type": 5, "_data": {"a": {"b": 1}}}}},
    {"quant_method": "torchao", "quant_type": {"a": {"_type": "X", "_data": 7}, "b": {}}},
    {"quant_method": "quanto", "weights_dtype": float("nan"), "activations": float("inf")},
    {"quant_method": "x\x1b[2J\n\ud800", "\x07": "\u202e", "long": "y" * 10_000},
    {"method": "svdquant", "weight": [1]},
    json.loads('{"quant_method": "deep", "a": ' + "[" * 300 + "]" * 300 + "}"),
)


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
def test_no_config_is_too_strange(said: Any, tmp_path: Path) -> None:
    config = {
        "quantization_config": said,
        "architectures": 5,
        "_class_name": ["x"],
        "in_channels": {},
    }
    folder = component(tmp_path / "x", config)
    (folder / "quanto_qmap.json").write_text(json.dumps({"a": 1, "b": {"weights": [2]}}))
    for options in ((), ("--json",)):
        done = CliRunner().invoke(cli, ["inspect", str(folder), *options])
        assert done.exit_code == 0, done.output
        assert all(c.isprintable() or c == "\n" for c in done.stdout)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: (place / "config.json").write_text("{"), "not valid JSON"),
        (lambda place: (place / "config.json").write_text("[]"), "not a JSON object"),
        (lambda place: (place / "model.safetensors").write_bytes(b"x"), "too short"),
        (lambda place: (place / "model.safetensors").unlink(), "weight file here"),
        (lambda place: (place / "config.json").write_text(" " * (1 << 24) + "{}"), "too large"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(
    damage: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    folder = component(tmp_path / "x", {})
    damage(folder)
    with pytest.raises(FluxconvError, match=words) as caught:
        inspect(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_an_index_cannot_lead_elsewhere(tmp_path: Path) -> None:
    folder = component(tmp_path / "x", {})
    (folder / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = {"weight_map": {"a.weight": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FluxconvError, match="beside it"):
        inspect(folder)


# The command -------------------------------------------------------------------------------------


def test_json_names_library_scheme_and_settings(tiny_variants: dict[str, Variant]) -> None:
    (part,) = answer(tiny_variants["bnb-nf4"].root / T5)["components"]
    assert (part["library"], part["scheme"]) == ("bitsandbytes", "nf4")
    assert part["settings"]["double_quant"] is False
    assert part["kept"] == 4
    (part,) = answer(tiny_variants["bnb-nf4"].root / T5, "--tensors")["components"]
    assert "encoder.block.1.layer.1.DenseReluDense.wo" in part["kept"]
    assert len(part["tensors"]) == len(only(tiny_variants["bnb-nf4"].root / T5).entries)


def test_people_read_the_same(tiny_variants: dict[str, Variant]) -> None:
    done = CliRunner().invoke(cli, ["inspect", str(tiny_variants["bnb-nf4"].root), "--tensors"])
    assert done.exit_code == 0
    assert "text_encoder_2: bitsandbytes nf4: block_size 64, double_quant no" in done.stdout
    assert "4 modules in high precision" in done.stdout
    assert "encoder.block.1.layer.1.DenseReluDense.wo" in done.stdout
