"""T5's encoder: transformers' names beside llama.cpp's names.

Sources: `T5EncoderModel` (transformers, `models/t5/modeling_t5.py`); llama.cpp's tensor names from
gguf-py (`gguf/tensor_mapping.py`, the `ENC_*` rows).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluxconv.converters.architectures.base import Architecture, Group, Row

_T, _L = "encoder.block.{i}", "enc.blk.{i}"
# Dimensions: d model width, a attention width (heads x d_kv), n heads, f feed-forward width,
# v vocabulary, b buckets of relative positions.
_BLOCK = (
    Row(f"{_T}.layer.0.SelfAttention.q", "linear", "axd", f"{_L}.attn_q"),
    Row(f"{_T}.layer.0.SelfAttention.k", "linear", "axd", f"{_L}.attn_k"),
    Row(f"{_T}.layer.0.SelfAttention.v", "linear", "axd", f"{_L}.attn_v"),
    Row(f"{_T}.layer.0.SelfAttention.o", "linear", "dxa", f"{_L}.attn_o"),
    Row(
        f"{_T}.layer.0.SelfAttention.relative_attention_bias",
        "relative bias",
        "bxn",
        f"{_L}.attn_rel_b",
        only_first=True,
    ),
    Row(f"{_T}.layer.0.layer_norm", "norm", "d", f"{_L}.attn_norm"),
    Row(f"{_T}.layer.1.DenseReluDense.wi_0", "linear", "fxd", f"{_L}.ffn_gate"),
    Row(f"{_T}.layer.1.DenseReluDense.wi_1", "linear", "fxd", f"{_L}.ffn_up"),
    Row(f"{_T}.layer.1.DenseReluDense.wo", "linear", "dxf", f"{_L}.ffn_down"),
    Row(f"{_T}.layer.1.layer_norm", "norm", "d", f"{_L}.ffn_norm"),
)


def _dimensions(config: Mapping[str, Any]) -> Mapping[str, int]:
    return {
        "d": int(config["d_model"]),
        "a": int(config["num_heads"]) * int(config["d_kv"]),
        "n": int(config["num_heads"]),
        "f": int(config["d_ff"]),
        "v": int(config["vocab_size"]),
        "b": int(config.get("relative_attention_num_buckets", 32)),
        "blocks": int(config["num_layers"]),
    }


T5_ENCODER = Architecture(
    component="text_encoder_2",
    title="T5 text encoder",
    class_name="T5EncoderModel",
    library="transformers",
    weights_name="model",
    max_shard_size="50GB",
    gguf="t5encoder",
    groups=(
        Group("", (Row("shared", "embedding", "vxd", "token_embd"),)),
        Group("blocks", _BLOCK),
        Group("", (Row("encoder.final_layer_norm", "norm", "d", "enc.output_norm"),)),
    ),
    dimensions=_dimensions,
    tied={"shared.weight": ("encoder.embed_tokens.weight",)},
)
