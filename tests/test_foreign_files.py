"""A file that is no FLUX.1 transformer is refused with one sentence on what it seems to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from single_files import Tensors, packed, save, transformer_of

from fluxconv.converters import Checkpoint, Variant, open_checkpoint
from fluxconv.converters.errors import FluxconvError, NotACheckpoint

ONE = torch.zeros(2, 2)

NAMES = {
    "LoRA for a Flux": "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
    "LoRA": "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
    "Stable Diffusion XL": "conditioner.embedders.1.model.positional_embedding",
    "Stable Diffusion": "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.norm1.weight",
    "T5 text encoder": "encoder.block.0.layer.0.SelfAttention.q.weight",
    "CLIP text encoder": "text_model.encoder.layers.0.mlp.fc1.weight",
    "VAE": "decoder.conv_in.weight",
    "Chroma transformer": "distilled_guidance_layer.in_proj.weight",
    "FLUX.2 transformer": "double_stream_modulation_img.lin.weight",
    "is no Flux transformer: it has 1 tensors, such as layers.0.weight": "layers.0.weight",
}


@pytest.mark.parametrize("what", NAMES)
def test_what_another_file_seems_to_be_is_said(what: str, tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint) as caught:
        open_checkpoint(save({NAMES[what]: ONE}, tmp_path))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_said_to_hold_nothing(tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(NotACheckpoint, match="holds no tensors"):
        open_checkpoint(tmp_path / "empty.safetensors")


@pytest.mark.parametrize("name", ["flux.ckpt", "flux.pt", "flux.pth", "flux.bin"])
def test_pickles_are_refused_as_files_and_in_folders(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for place in (tmp_path / name, tmp_path):
        with pytest.raises(NotACheckpoint, match=r"pickle.*safetensors/convert"):
            open_checkpoint(place)


def test_gguf_and_other_files_are_refused(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    (file,) = tiny_variants["gguf-q8_0"].root.glob("*flux-Q8_0.gguf")
    with pytest.raises(NotACheckpoint, match=r"quantized \(GGUF Q8_0\).*--allow-requantize"):
        open_checkpoint(file)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(NotACheckpoint, match="no safetensors file"):
        open_checkpoint(tmp_path / "notes.txt")


def _missing(tensors: Tensors) -> None:
    del tensors["double_blocks.1.txt_attn.norm.key_norm.scale"]


def _unexpected(tensors: Tensors) -> None:
    tensors |= {f"extra_{i}.weight": ONE for i in range(7)}


def _wrong_shape(tensors: Tensors) -> None:
    tensors["single_blocks.0.linear1.bias"] = torch.zeros(5, dtype=torch.bfloat16)


def _without_landmark(tensors: Tensors) -> None:
    del tensors["img_in.weight"]


def _int8(tensors: Tensors) -> None:
    name = "double_blocks.0.img_mlp.0"
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"].to(torch.int8)
    tensors[f"{name}.weight_scale"] = torch.tensor(1.0)


def _scale_of_blocks(tensors: Tensors) -> None:
    name = "double_blocks.0.img_mlp.0"
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"].to(torch.float8_e4m3fn)
    tensors[f"{name}.weight_scale"] = torch.zeros(32, 32)


def _format(tensors: Tensors) -> None:
    text = b'{"format": "mxfp8"}'
    tensors["img_in.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)


def _garbled_format(tensors: Tensors) -> None:
    tensors["img_in.comfy_quant"] = torch.tensor(list(b"{"), dtype=torch.uint8)


def _bitsandbytes(tensors: Tensors) -> None:
    name = "double_blocks.0.img_mlp.0.weight"
    tensors[name] = torch.zeros(8, 1, dtype=torch.uint8)
    tensors[f"{name}.quant_state.bitsandbytes__nf4"] = torch.zeros(8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_missing, "1 missing tensors, such as double_blocks.1.txt_attn.norm.key_norm.scale"),
        (_unexpected, "7 unexpected tensors, such as extra_0.weight, extra_1.weight, extra_2"),
        (_wrong_shape, "'single_blocks.0.linear1.bias' has shape [5]"),
        (_without_landmark, "lacks img_in.weight"),
        (_int8, "is I8; fluxconv reads"),
        (_scale_of_blocks, "is F32 [32, 32]; fluxconv reads one float scale"),
        (_format, "has the format mxfp8"),
        (_garbled_format, "is not valid JSON"),
        (_bitsandbytes, "quantized with bitsandbytes; dequantize it first"),
    ],
)
def test_what_is_wrong_with_a_flux_file_is_said(
    damage: Callable[[Tensors], None], words: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    tensors = packed(transformer_of(tiny_checkpoint.root))
    damage(tensors)
    with pytest.raises(FluxconvError) as caught:
        open_checkpoint(save(tensors, tmp_path), base=tiny_checkpoint.root)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
