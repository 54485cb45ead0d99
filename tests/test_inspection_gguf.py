"""`inspect` says what a GGUF file of any tool is, and who would mistake it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gguf
import pytest
from click.testing import CliRunner
from gguf_files import PREFIX, Types, flux_types, write
from inspecting import answer, only

from fluxconv.commands.main import cli
from fluxconv.converters import Checkpoint


def _said(writer: gguf.GGUFWriter) -> None:
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_quantization_version(2)
    writer.add_name("A fine-tune\x1b[2J")
    writer.add_license("apache-2.0")
    writer.add_source_repo_url("https://huggingface.co/owner/name")
    writer.add_base_model_count(1)
    writer.add_base_model_repo_url(0, "https://huggingface.co/owner/base")
    writer.add_tags([f"tag {i}" for i in range(9)])
    writer.add_tokenizer_model("t5")
    writer.add_token_list([f"token {i}".encode() for i in range(1200)])


def test_inspect_says_what_the_file_says(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "some-Q4_K_M.gguf"
    types = flux_types(tiny_checkpoint.root)
    write(file, types, metadata=_said)
    (part,) = answer(file)["components"]
    assert part["title"] == "gguf file: Flux transformer"
    assert part["library"] == "gguf"
    assert part["scheme"] == "Q4_K_M"
    assert part["quantization"] == "flux Q4_K_M"
    counted = [kind for kind, _ in types.values()]
    assert part["dtypes"] == {kind: counted.count(kind) for kind in counted}
    assert part["family"] == "a Flux transformer of another family"  # tiny as it is
    assert part["notes"] == ["Black Forest Labs' names"]
    assert part["settings"] == {
        "architecture": "flux",
        "name": "A fine-tune\\x1b[2J",
        "quantization_version": 2,
        "license": "apache-2.0",
        "source": "https://huggingface.co/owner/name",
        "base_model_url": "https://huggingface.co/owner/base",
        "tags": [*(f"tag {i}" for i in range(5)), "..."],
        "tokenizer": "t5, 1,200 tokens",
    }
    shown = CliRunner().invoke(cli, ["inspect", str(file)])
    assert shown.exit_code == 0
    for words in ("tokenizer t5, 1,200 tokens", "owner/name", "Q6_K"):
        assert words in shown.stdout


def test_a_file_without_metadata_is_told_by_its_types(tmp_path: Path) -> None:
    write(tmp_path / "x.gguf", {"a": ("Q4_K", (8, 256)), "b": ("Q6_K", (1, 256))}, None)
    found = only(tmp_path / "x.gguf")
    assert found.quantization == "gguf Q4_K + Q6_K"
    assert found.recognised is not None and not found.recognised.settings


def test_a_language_model_is_described(tmp_path: Path) -> None:
    types: Types = {"blk.0.attn_q.weight": ("Q4_K", (256, 256)), "x": ("IQ2_XXS", (1, 256))}
    write(tmp_path / "x.gguf", types, "llama")
    (part,) = answer(tmp_path / "x.gguf")["components"]
    assert part["quantization"] == "llama Q4_K + IQ2_XXS"
    assert part["family"] is None


def test_a_file_that_says_another_type_is_noticed(tmp_path: Path) -> None:
    write(
        tmp_path / "x.gguf",
        {"a": ("Q8_0", (8, 256))},
        metadata=lambda writer: writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_S),
    )
    assert only(tmp_path / "x.gguf").notes == (
        "its metadata says Q4_K_S, and none of its tensors is Q4_K",
    )


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("channels", [64, 128, 384])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_who_is_mistaken_by_diffusers_is_said(
    kind: str, channels: int, guided: bool, prefix: str, tmp_path: Path
) -> None:
    """With diffusers itself as the judge of what it takes a file for."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from diffusers.models.model_loading_utils import load_gguf_checkpoint

    types: Types = {
        "img_in.weight": (kind, (128, channels)),
        "txt_in.weight": ("F16", (128, 64)),
        "vector_in.in_layer.weight": ("F16", (128, 64)),
        "final_layer.linear.weight": ("F16", (64, 128)),
        "double_blocks.0.img_attn.norm.query_norm.scale": ("F32", (128,)),
        "double_blocks.0.img_attn.norm.key_norm.scale": ("F32", (128,)),
        "double_blocks.0.txt_attn.norm.key_norm.scale": ("F32", (128,)),
    }
    if guided:
        types["guidance_in.in_layer.weight"] = ("F16", (128, 256))
        types["guidance_in.in_layer.bias"] = ("F32", (128,))
    file = tmp_path / "x.gguf"
    write(file, {prefix + name: each for name, each in types.items()})
    taken = infer_diffusers_model_type(load_gguf_checkpoint(str(file)))
    true = {64: "flux-dev", 128: "flux-depth", 384: "flux-fill"}[channels] if guided else taken
    family = only(file).family
    assert family is not None
    if guided:
        assert true.removeprefix("flux-") in family.lower()
    warned = [note for note in only(file).notes if note.startswith("diffusers would load it as")]
    assert bool(warned) is (taken != true)
    if warned:
        assert taken.removeprefix("flux-") in warned[0].lower()
        assert re.search(rf"img_in\.weight, which is {kind}", warned[0])


def test_settings_can_be_printed_as_json(tmp_path: Path) -> None:
    """Also numbers and truth values where texts are expected."""

    def odd(writer: gguf.GGUFWriter) -> None:
        writer.add_float32("general.name", float("nan"))
        writer.add_bool("general.author", True)
        writer.add_array("general.license", [1, 2])
        writer.add_uint32("tokenizer.ggml.model", 7)

    write(tmp_path / "x.gguf", {"a": ("F32", (4,))}, metadata=odd)
    settings = answer(tmp_path / "x.gguf")["components"][0]["settings"]
    assert json.loads(json.dumps(settings, allow_nan=False)) == {
        "architecture": "flux",
        "name": "nan",
        "author": True,
        "license": [1, 2],
        "tokenizer": "7",
    }
