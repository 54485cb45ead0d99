"""The tensors that get a better type than the rest of their file, as the field makes such files.

The transformer: as in the files of ComfyUI-GGUF, whose `tools/lcpp.patch` has llama.cpp treat
`attn.qkv` as it treats `attn_qkv`: in `_M` files the fused attention of the double blocks (38
tensors in FLUX.1-dev) is one type better. Nothing else of Flux has a name that llama.cpp knows.

T5: as llama.cpp's `llama-quantize` makes it without an importance matrix (`src/llama-quant.cpp`,
`llama_tensor_get_type_impl`), so that a file has the types and the size that its name promises
elsewhere. The token embedding is taken for the output matrix, whose weights it shares where there
is no other; values and the feed-forward's second matrix get more bits in some layers. Which ones is
written out for the 24 layers of T5-XXL, the encoder of every FLUX.1.

Both leave the types before the K-quants at one type a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_EMBEDDING = (r"^token_embd\.weight$", "Q6_K")
# llama.cpp's `use_more_bits`: the first and last eighth of the layers, every third between them.
_MORE_BITS = (r"^enc\.blk\.([0-2]|5|8|11|14|17|2[0-3])\.(attn_v|ffn_down)\.weight$", "Q6_K")
_QKV = r"attn\.qkv\.weight$"

#: The file's type -> (pattern of GGUF tensor names, their type); the first that matches decides.
UPGRADES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Q2_K": (_EMBEDDING, (r"\.(attn_v|ffn_down)\.weight$", "Q3_K")),
    "Q3_K_S": (_EMBEDDING,),
    "Q3_K_M": (
        _EMBEDDING,
        (r"^enc\.blk\.([01]\.attn_v|0\.ffn_down)\.weight$", "Q5_K"),
        (r"\.(attn_v|ffn_down)\.weight$", "Q4_K"),
        (_QKV, "Q4_K"),
    ),
    "Q4_K_S": (
        _EMBEDDING,
        (r"^enc\.blk\.([0-3]\.attn_v|[0-2]\.ffn_down)\.weight$", "Q5_K"),
    ),
    "Q4_K_M": (_EMBEDDING, _MORE_BITS, (_QKV, "Q5_K")),
    "Q5_K_S": (_EMBEDDING,),
    "Q5_K_M": (_EMBEDDING, _MORE_BITS, (_QKV, "Q6_K")),
    "IQ4_NL": (_EMBEDDING, (r"^enc\.blk\.[0-2]\.ffn_down\.weight$", "Q5_K")),
    "IQ4_XS": (_EMBEDDING, (r"^enc\.blk\.[0-2]\.ffn_down\.weight$", "Q5_K")),
}


def upgraded(label: str, tensor: str) -> str | None:
    """The better type that `tensor` gets in files called `label` (`Q4_K_M`), None for most."""
    for pattern, type_name in UPGRADES.get(label, ()):
        if re.search(pattern, tensor):
            return type_name
    return None
