"""T5's encoder in a GGUF file under llama.cpp's names, told from shapes and metadata.

llama.cpp writes it as `t5encoder`, and a whole T5 as `t5`, with the same names for the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fluxconv.converters.architectures import T5_ENCODER

#: How the names of the encoder's tensors begin; the decoder and the output have others.
T5_NAMES = ("token_embd.", "enc.")
#: Where the numbers of a config show: a tensor, and what its two sizes are.
_SHOWN = {
    "token_embd.weight": ("vocab_size", "d_model"),
    "enc.blk.0.attn_q.weight": ("width", "d_model"),
    "enc.blk.0.attn_rel_b.weight": ("relative_attention_num_buckets", "num_heads"),
    "enc.blk.0.ffn_gate.weight": ("d_ff", "d_model"),
}
_BLOCK = re.compile(r"enc\.blk\.(\d+)\.")


def t5_config(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The `config.json` of the T5 encoder among tensors of these names and shapes; None if there is
    none. What neither shapes nor metadata tell is as in every T5 v1.1."""
    seen: dict[str, int] = {}
    for name, keys in _SHOWN.items():
        shape = shapes.get(name, ())
        if len(shape) != 2 or not all(shape):
            return None
        seen |= zip(keys, shape, strict=True)
    blocks = {match[1] for match in map(_BLOCK.match, shapes) if match}
    width, heads = seen.pop("width"), seen["num_heads"]
    return {
        "architectures": [T5_ENCODER.class_name],
        "model_type": "t5",
        **seen,
        "d_kv": width // heads,
        "num_layers": len(blocks),
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": _epsilon(metadata),
        "relative_attention_max_distance": 128,
        "is_encoder_decoder": False,
        "use_cache": False,
    }


def _epsilon(metadata: Mapping[str, Any]) -> float:
    kind = metadata.get("general.architecture")
    found = metadata.get(f"{kind}.attention.layer_norm_epsilon", 1e-6)
    # It was rounded to fp32, and is meant as a short decimal number.
    return float(f"{found:.6g}") if isinstance(found, float) else 1e-6
