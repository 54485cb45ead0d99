"""FLUX.1's transformer: diffusers' names beside Black Forest Labs' names.

Sources: `FluxTransformer2DModel` (diffusers, `models/transformers/transformer_flux.py`) for the
order and sizes; `convert_flux_transformer_checkpoint_to_diffusers` (diffusers,
`loaders/single_file_utils.py`) for the second column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluxconv.converters.architectures.base import Architecture, Group, Row


def _linear(
    module: str, size: str, packed: str, part: int = 0, *, swap_halves: bool = False
) -> Row:
    return Row(module, "linear", size, packed, part, bias=True, swap_halves=swap_halves)


def _norm(module: str, packed: str) -> Row:
    return Row(module, "norm", "h", packed, packed_suffix="scale")


# Dimensions: d inner width, h head width, c packed image channels in, o out, t text width,
# p pooled text width, g 256 with guidance embedding and 0 without.
_EMBEDDERS = (
    _linear("time_text_embed.timestep_embedder.linear_1", "dx256", "time_in.in_layer"),
    _linear("time_text_embed.timestep_embedder.linear_2", "dxd", "time_in.out_layer"),
    _linear("time_text_embed.guidance_embedder.linear_1", "dxg", "guidance_in.in_layer"),
    _linear("time_text_embed.guidance_embedder.linear_2", "guidance_dxd", "guidance_in.out_layer"),
    _linear("time_text_embed.text_embedder.linear_1", "dxp", "vector_in.in_layer"),
    _linear("time_text_embed.text_embedder.linear_2", "dxd", "vector_in.out_layer"),
    _linear("context_embedder", "dxt", "txt_in"),
    _linear("x_embedder", "dxc", "img_in"),
)

_D, _B = "transformer_blocks.{i}", "double_blocks.{i}"
_DOUBLE = (
    _linear(f"{_D}.norm1.linear", "6dxd", f"{_B}.img_mod.lin"),
    _linear(f"{_D}.norm1_context.linear", "6dxd", f"{_B}.txt_mod.lin"),
    _norm(f"{_D}.attn.norm_q", f"{_B}.img_attn.norm.query_norm"),
    _norm(f"{_D}.attn.norm_k", f"{_B}.img_attn.norm.key_norm"),
    _linear(f"{_D}.attn.to_q", "dxd", f"{_B}.img_attn.qkv", 0),
    _linear(f"{_D}.attn.to_k", "dxd", f"{_B}.img_attn.qkv", 1),
    _linear(f"{_D}.attn.to_v", "dxd", f"{_B}.img_attn.qkv", 2),
    _linear(f"{_D}.attn.to_out.0", "dxd", f"{_B}.img_attn.proj"),
    _norm(f"{_D}.attn.norm_added_q", f"{_B}.txt_attn.norm.query_norm"),
    _norm(f"{_D}.attn.norm_added_k", f"{_B}.txt_attn.norm.key_norm"),
    _linear(f"{_D}.attn.add_q_proj", "dxd", f"{_B}.txt_attn.qkv", 0),
    _linear(f"{_D}.attn.add_k_proj", "dxd", f"{_B}.txt_attn.qkv", 1),
    _linear(f"{_D}.attn.add_v_proj", "dxd", f"{_B}.txt_attn.qkv", 2),
    _linear(f"{_D}.attn.to_add_out", "dxd", f"{_B}.txt_attn.proj"),
    _linear(f"{_D}.ff.net.0.proj", "4dxd", f"{_B}.img_mlp.0"),
    _linear(f"{_D}.ff.net.2", "dx4d", f"{_B}.img_mlp.2"),
    _linear(f"{_D}.ff_context.net.0.proj", "4dxd", f"{_B}.txt_mlp.0"),
    _linear(f"{_D}.ff_context.net.2", "dx4d", f"{_B}.txt_mlp.2"),
)

_S, _C = "single_transformer_blocks.{i}", "single_blocks.{i}"
_SINGLE = (
    _linear(f"{_S}.norm.linear", "3dxd", f"{_C}.modulation.lin"),
    _linear(f"{_S}.proj_mlp", "4dxd", f"{_C}.linear1", 3),
    _linear(f"{_S}.proj_out", "dx5d", f"{_C}.linear2"),
    _norm(f"{_S}.attn.norm_q", f"{_C}.norm.query_norm"),
    _norm(f"{_S}.attn.norm_k", f"{_C}.norm.key_norm"),
    _linear(f"{_S}.attn.to_q", "dxd", f"{_C}.linear1", 0),
    _linear(f"{_S}.attn.to_k", "dxd", f"{_C}.linear1", 1),
    _linear(f"{_S}.attn.to_v", "dxd", f"{_C}.linear1", 2),
)

_OUTPUT = (
    # diffusers splits the projection into (scale, shift), BFL into (shift, scale)
    _linear("norm_out.linear", "2dxd", "final_layer.adaLN_modulation.1", swap_halves=True),
    _linear("proj_out", "oxd", "final_layer.linear"),
)


def _dimensions(config: Mapping[str, Any]) -> Mapping[str, int]:
    head = int(config["attention_head_dim"])
    width = head * int(config["num_attention_heads"])
    patch = int(config.get("patch_size") or 1)
    out_channels = int(config.get("out_channels") or config["in_channels"])
    guidance = bool(config.get("guidance_embeds"))
    return {
        "d": width,
        "h": head,
        "c": int(config["in_channels"]),
        "o": out_channels * patch * patch,
        "t": int(config["joint_attention_dim"]),
        "p": int(config["pooled_projection_dim"]),
        "g": 256 if guidance else 0,
        "guidance_d": width if guidance else 0,
        "double": int(config["num_layers"]),
        "single": int(config["num_single_layers"]),
    }


FLUX = Architecture(
    component="transformer",
    title="Flux transformer",
    class_name="FluxTransformer2DModel",
    library="diffusers",
    weights_name="diffusion_pytorch_model",
    max_shard_size="10GB",
    gguf="flux",
    groups=(
        Group("", _EMBEDDERS),
        Group("double", _DOUBLE),
        Group("single", _SINGLE),
        Group("", _OUTPUT),
    ),
    dimensions=_dimensions,
    tied={},
    config_fields={
        "patch_size": 1,
        "in_channels": 64,
        "out_channels": None,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": False,
        "axes_dims_rope": [16, 56, 56],
    },
)
