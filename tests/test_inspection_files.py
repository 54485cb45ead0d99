"""`inspect` says what a lone weight file is, whatever tool wrote it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from inspecting import only
from safetensors.torch import load_file, save_file
from test_importance_files import pair, write_imatrix

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.architectures import FLUX
from fluxconv.converters.architectures.base import packed_groups
from fluxconv.converters.inspection import inspect

# GGUF --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says_its_type", [True, False])
def test_gguf_file_of_another_tool(says_its_type: bool, tmp_path: Path) -> None:
    """A K-quant, which gguf-py only writes if it is handed the bytes; some tools name no type."""
    import gguf
    import numpy as np

    file = tmp_path / "flux1-schnell-Q4_K_S.gguf"
    writer = gguf.GGUFWriter(file, "flux")
    if says_its_type:
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_S)
    blocks = np.zeros((32, 144), np.uint8)  # 32 rows of 256 weights
    for part in ("img_attn.qkv", "txt_attn.qkv"):
        name = f"double_blocks.0.{part}.weight"
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.add_tensor("img_in.weight", np.zeros((8, 64), np.float16))
    writer.add_tensor("img_in.bias", np.zeros(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    found = only(file)
    assert found.title == "gguf file: Flux transformer"
    assert found.recognised is not None
    assert found.recognised.library == "gguf"
    assert found.recognised.scheme == ("Q4_K_S" if says_its_type else "Q4_K")
    assert found.dtypes == {"Q4_K": 2, "F16": 1, "F32": 1}
    assert found.kept == ("img_in",)
    assert found.weights == 2 * 32 * 256 + 8 * 64 + 8
    assert found.bits_per_weight == 8 * (2 * 32 * 144 + 2 * 512 + 4 * 8) / found.weights


def test_folder_of_gguf_files(tiny_variants: dict[str, Variant], tmp_path: Path) -> None:
    for file in tiny_variants["gguf-q8_0"].root.glob("*.gguf"):
        shutil.copy(file, tmp_path)
    found = inspect(tmp_path)
    assert found.kind == "files"
    assert [part.title for part in found.components] == [
        "gguf file: Flux transformer",
        "gguf file: T5 text encoder",
    ]


# Importance --------------------------------------------------------------------------------------

LAYER = "transformer_blocks.0.attn.to_q"


def test_importance_file_of_ours(tmp_path: Path) -> None:
    """Its layers have a model's names, and are none of its weights."""
    file = tmp_path / "importance.safetensors"
    said = {"format": "fluxconv importance 1", "source": "owner/flux", "prompts": "72"}
    save_file({LAYER: torch.ones(64)}, file, said)
    found = only(file)
    assert found.title == "safetensors file: importance of a model's inputs"
    assert (found.quantization, found.weights, found.family) == ("none", None, None)
    assert found.recognised is not None
    assert found.recognised.label == "fluxconv importance"
    assert found.recognised.settings == {"layers": 1, "source": "owner/flux", "prompts": 72}


def test_importance_file_of_llama_cpp(tmp_path: Path) -> None:
    file = write_imatrix(tmp_path / "imatrix.gguf", pair([[1, 2]], [[3]]))
    found = only(file)
    assert found.title == "gguf file: importance of a model's inputs"
    assert found.recognised is not None
    assert found.recognised.label == "llama.cpp importance"
    settings = found.recognised.settings
    assert (settings["layers"], settings["chunks"]) == (1, 3)
    assert settings["datasets"] == ["calibration.txt"]


# Safetensors -------------------------------------------------------------------------------------


def fused(checkpoint: Checkpoint, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tiny transformer under Black Forest Labs' names."""
    config = checkpoint.components["transformer"].config
    return {
        prefix + name: torch.zeros(
            sum(spec.shape[0] for spec in specs), *specs[0].shape[1:], dtype=torch.bfloat16
        )
        for name, specs in packed_groups(FLUX.specs(config)).items()
    }


def matrices(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if tensor.ndim == 2]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_single_file_of_a_flux_transformer(
    prefix: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save_file(fused(tiny_checkpoint, prefix), tmp_path / "flux.safetensors")
    found = only(tmp_path / "flux.safetensors")
    assert found.title == "safetensors file: Flux transformer"
    assert found.quantization == "none"
    assert found.family == "a Flux transformer of another family"  # tiny as it is
    assert found.notes == ("Black Forest Labs' names",)
    assert found.bits_per_weight == 16


def test_the_family_is_told_from_shapes(tmp_path: Path) -> None:
    """FLUX.1-schnell's widths, with one block of each kind, as float8 without scales."""
    config = {
        **{"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 128},
        **{"num_attention_heads": 24, "in_channels": 64, "joint_attention_dim": 4096},
        **{"pooled_projection_dim": 768, "guidance_embeds": False},
    }
    tensors = {
        spec.name: torch.empty(spec.shape, dtype=torch.float8_e4m3fn) for spec in FLUX.specs(config)
    }
    save_file(tensors, tmp_path / "schnell.safetensors")
    found = only(tmp_path / "schnell.safetensors")
    assert found.family == "FLUX.1-schnell"
    assert found.quantization == "torch float8_e4m3fn"
    assert found.bits_per_weight == 8


def scaled(tensors: dict[str, torch.Tensor], scale: str) -> dict[str, torch.Tensor]:
    found = dict(tensors)
    for name in matrices(tensors):
        found[name] = tensors[name].to(torch.float8_e4m3fn)
        found[f"{name.removesuffix('weight')}{scale}"] = torch.ones(())
    return found


def test_scaled_float8_of_comfyui(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Both ways: one mark for the file, or a text for each layer."""
    plain = fused(tiny_checkpoint)
    count = sum(tensor.numel() for tensor in plain.values())
    older = scaled(plain, "scale_weight") | {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    text = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    newer = scaled(plain, "weight_scale") | {
        f"{name.removesuffix('weight')}comfy_quant": text.clone() for name in matrices(plain)
    }
    for tensors in (older, newer):
        save_file(tensors, tmp_path / "flux_fp8.safetensors")
        found = only(tmp_path / "flux_fp8.safetensors")
        assert found.quantization == "ComfyUI float8_e4m3fn"
        assert found.recognised is not None
        assert found.recognised.settings == {"granularity": "tensor"}
        assert found.weights == count
        assert found.notes == ("Black Forest Labs' names",)


def test_four_bit_floats(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """NVFP4: two weights a byte, and scales of two kinds; the header or nothing says so."""
    plain = fused(tiny_checkpoint)
    tensors = dict(plain)
    for name in matrices(plain):
        rows, columns = plain[name].shape
        tensors[name] = torch.zeros(rows, columns // 2, dtype=torch.uint8)
        tensors[f"{name}_scale"] = torch.zeros(rows, columns // 16).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_2"] = torch.ones(())
    layers = {name.removesuffix(".weight"): {"format": "nvfp4"} for name in matrices(plain)}
    for metadata, label in (
        ({}, "modelopt nvfp4"),
        ({"_quantization_metadata": json.dumps({"layers": layers})}, "ComfyUI nvfp4"),
    ):
        save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
        found = only(tmp_path / "x.safetensors")
        assert found.quantization == label
        assert found.weights == sum(tensor.numel() for tensor in plain.values())


def test_four_bit_single_file_of_bitsandbytes(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """As the first 4-bit Flux files were: a prefix, and no config."""
    source = tiny_variants["bnb-nf4"].root / "transformer/diffusion_pytorch_model.safetensors"
    tensors = {f"model.diffusion_model.{k}": v for k, v in load_file(source).items()}
    save_file(tensors, tmp_path / "flux1-nf4.safetensors")
    found = only(tmp_path / "flux1-nf4.safetensors")
    assert found.quantization == "bitsandbytes nf4"
    assert found.family == "a Flux transformer of another family"
    bits = tiny_variants["bnb-nf4"].manifest.components["transformer"].bits_per_weight
    assert found.bits_per_weight == pytest.approx(bits, abs=1e-4)


def test_svdquant_file(tmp_path: Path) -> None:
    """The names and the header of nunchaku's files."""
    block = "single_transformer_blocks.0.mlp_fc1"
    tensors = {
        f"{block}.qweight": torch.zeros(256, 64, dtype=torch.int8),
        f"{block}.wscales": torch.zeros(2, 256, dtype=torch.bfloat16),
        f"{block}.bias": torch.zeros(256, dtype=torch.bfloat16),
        f"{block}.lora_down": torch.zeros(128, 32, dtype=torch.bfloat16),
        f"{block}.lora_up": torch.zeros(256, 32, dtype=torch.bfloat16),
        f"{block}.smooth": torch.zeros(128, dtype=torch.bfloat16),
    }
    said = {"method": "svdquant", "weight": {"dtype": "int4", "group_size": 64}}
    metadata = {"quantization_config": json.dumps(said)}
    for header, label in ((metadata, "nunchaku svdquant int4"), ({}, "nunchaku svdquant int4")):
        save_file(tensors, tmp_path / "svdq-int4.safetensors", metadata=header)
        found = only(tmp_path / "svdq-int4.safetensors")
        assert found.title == "safetensors file: Flux transformer"
        assert found.quantization == label
        assert found.recognised is not None
        assert found.recognised.settings["rank"] == 32
        assert found.weights == 256 * 128 + 256
    assert "group_size" not in found.recognised.settings


@pytest.mark.parametrize(
    ("names", "title", "notes"),
    [
        (
            ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",
             "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight"),
            "LoRA for a Flux transformer", ("rank 4",),
        ),
        (
            ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
             "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight",
             "lora_unet_double_blocks_0_img_attn_qkv.alpha"),
            "LoRA for a Flux transformer", ("rank 4",),
        ),
        (("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",), "LoRA", ("rank 4",)),
        (("controlnet_x_embedder.weight", "transformer_blocks.0.attn.to_q.weight"),
         "ControlNet", ()),
        (("encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"),
         "T5 text encoder", ()),
        (("text_model.encoder.layers.0.self_attn.q_proj.weight",), "CLIP text encoder", ()),
        (("decoder.up.0.block.0.conv1.weight", "encoder.conv_in.weight"), "VAE", ()),
        (("distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight"),
         "Chroma transformer", ()),
        (("double_stream_modulation_img.lin.weight", "double_blocks.0.img_attn.qkv.weight"),
         "FLUX.2 transformer", ()),
        (("joint_blocks.0.x_block.attn.qkv.weight",), "Stable Diffusion 3 transformer", ()),
        (("conditioner.embedders.0.transformer.x.weight",), "Stable Diffusion XL", ()),
        (
            ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight",
             "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight",
             "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
             "vae.decoder.conv_in.weight"),
            "Flux transformer, T5 text encoder, CLIP text encoder, VAE", (),
        ),
    ],
)  # fmt: skip
def test_what_a_file_holds_shows_in_its_names(
    names: tuple[str, ...], title: str, notes: tuple[str, ...], tmp_path: Path
) -> None:
    save_file({name: torch.zeros(4, 4) for name in names}, tmp_path / "x.safetensors")
    found = only(tmp_path / "x.safetensors")
    assert found.title == f"safetensors file: {title}"
    assert found.notes == notes
    assert found.quantization == "none"


def test_an_unknown_packing_gets_no_bits(tmp_path: Path) -> None:
    """Rather than a guess."""
    tensors = {"a.codes": torch.zeros(4, 4, dtype=torch.uint8), "a.lut": torch.zeros(16)}
    save_file(tensors, tmp_path / "x.safetensors")
    found = only(tmp_path / "x.safetensors")
    assert found.weights is None
    assert found.bits_per_weight is None
    assert found.title == "safetensors file"


def test_a_state_that_lies_gets_no_bits(tiny_variants: dict[str, Variant], tmp_path: Path) -> None:
    """A shape that does not fit the bytes beside it."""
    source = tiny_variants["bnb-nf4"].root / "transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(source)
    name = "proj_out.weight.quant_state.bitsandbytes__nf4"
    lie = bytes(tensors[name].tolist()).replace(b'"shape": [', b'"shape": [9')
    tensors[name] = torch.tensor(list(lie), dtype=torch.uint8)
    save_file(tensors, tmp_path / "x.safetensors")
    assert only(tmp_path / "x.safetensors").bits_per_weight is None
