"""What a weight file holds, told from the names of its tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sign:
    """A name that matches `pattern` is in every file that holds `what`."""

    what: str
    pattern: str


#: Changes to a model, whose names contain those of the model.
_CHANGES = (
    Sign(
        "LoRA",
        r"lora_(up|down|A|B)\b|\blora_unet_|\blora_te\d?_|\.hada_w1|\.lokr_w1|_lora\d?\.(up|down)\.",
    ),
    Sign("ControlNet", r"^controlnet_|^control_model\.|^input_hint_block|^pos_embed_input\."),
    Sign("IP-Adapter", r"\bip_adapter\b|^image_proj\."),
)
_FLUX = re.compile(r"(double_blocks|single_blocks|single_transformer_blocks)[._]\d")
#: Models that draw, the most telling first: later ones share names with earlier ones.
_TRANSFORMERS = (
    Sign("Chroma transformer", r"\bdistilled_guidance_layer\."),
    Sign("FLUX.2 transformer", r"\bdouble_stream_modulation_(img|txt)\b"),
    Sign("HunyuanVideo transformer", r"\bindividual_token_refiner\b"),
    Sign(
        "Flux transformer",
        r"\bdouble_blocks\.\d+\.img_(attn|mod)\."
        r"|\bsingle_transformer_blocks\.\d+\.(proj_mlp|mlp_fc1|qkv_proj)\b"
        r"|\btransformer_blocks\.\d+\.(ff_context|mlp_context_fc1)\b",
    ),
    Sign("Stable Diffusion 3 transformer", r"\bjoint_blocks\.\d"),
    Sign(
        "Stable Diffusion XL",
        r"^conditioner\.embedders\.|\badd_embedding\.|\binput_blocks\.4\.1\.transformer_blocks\.1\.",
    ),
    Sign("Stable Diffusion", r"\b(input_blocks|down_blocks)\.\d+\.\d+\.(in_layers|transformer_)"),
)
#: What may stand beside a transformer in one file.
_PARTS = (
    Sign(
        "T5 text encoder", r"\blayer\.0\.SelfAttention\.|^enc\.blk\.\d|\bblock\.\d+\.layer\.0\.Self"
    ),
    Sign(
        "CLIP text encoder",
        r"\btext_model\.encoder\.layers\.|\btransformer\.resblocks\.\d"
        r"|\bembeddings\.position_embedding\b",
    ),
    Sign(
        "VAE",
        r"\b(en|de)coder\.(conv_in|conv_out|down\.\d|up\.\d|down_blocks|up_blocks|mid_block)\b",
    ),
)


def what_is_in(names: Iterable[str]) -> tuple[str, ...]:
    """The parts of a model that a file with tensors of these `names` holds; empty if unknown."""
    text = "\n".join(names)
    for sign in _CHANGES:
        if _is_in(sign, text):
            return (f"{sign.what} for a Flux transformer" if _FLUX.search(text) else sign.what,)
    model = _first(_TRANSFORMERS, text)
    parts = tuple(sign.what for sign in _PARTS if _is_in(sign, text))
    return (model, *parts) if model else parts


def _first(signs: Iterable[Sign], text: str) -> str | None:
    return next((sign.what for sign in signs if _is_in(sign, text)), None)


def _is_in(sign: Sign, text: str) -> bool:
    return re.search(sign.pattern, text, re.MULTILINE) is not None


def lora_rank(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The rank of most of a LoRA's weights, from the shapes of its tensors by name."""
    ranks = Counter(
        shape[0]
        for name, shape in shapes.items()
        if re.search(r"lora_(down|A)\b|\.down\.weight$", name) and len(shape) == 2
    )
    return ranks.most_common(1)[0][0] if ranks else None
