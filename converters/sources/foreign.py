"""What to say of a file that is no Flux transformer as fluxconv reads it."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import repeat

from fluxconv.converters.architectures.recognition import LAYOUTS, missing_landmarks
from fluxconv.converters.contents import what_is_in
from fluxconv.converters.visible import visible

_DEQUANTIZE = "dequantize it first, or give the checkpoint it was made from"
_WITH_BASE = "give the transformer, and with --base the pipeline that has the rest"
#: What to do with a file, by a word of what it holds; the first that fits.
_ADVICE = (
    ("LoRA", "it changes a model and is none by itself; merge it into one, and give that"),
    ("transformer", "give a FLUX.1 checkpoint"),
    ("Stable Diffusion", "give a FLUX.1 checkpoint"),
    ("architecture", "give a FLUX.1 checkpoint"),
    ("T5", "give the folder that has its config.json, too, or a whole pipeline"),
    ("", _WITH_BASE),
)
#: Names that only quantized weights have, and who gives them.
_QUANTIZED = (
    (r"\.quant_state\.bitsandbytes__|\.SCB$", "with bitsandbytes"),
    (r"\.weight_scale_2$", "to NVFP4"),
    (r"\.(qweight|wscales|qzeros)$", "to packed integers"),
    (r"\.weight(_qdata|\._data|\._packed)$", "with torchao or quanto"),
)


def seems_to_be(names: Collection[str], architecture: object = None) -> str:
    """The second half of a sentence on a file with tensors of these `names`: what it seems to be,
    and what to do. `architecture` is what it says itself."""
    if not names:
        return "holds no tensors; download it again"
    parts = what_is_in(names)
    if not parts and isinstance(architecture, str):
        parts = (f"a model of the architecture '{visible(architecture)}'",)
    if "Flux transformer" in parts:
        lacking = ", ".join(min(map(missing_landmarks, LAYOUTS, repeat(names)), key=len)[:5])
        return f"seems to hold a Flux transformer, but lacks {lacking}; give the whole file"
    if parts:
        advice = next(text for word, text in _ADVICE if word in parts[0])
        return f"is no Flux transformer, and seems to hold: {', '.join(parts)}; {advice}"
    some = ", ".join(visible(name) for name in list(names)[:5])
    return f"is no Flux transformer: it has {len(names)} tensors, such as {some}"


def how_quantized(names: Collection[str]) -> str | None:
    """The same for weights quantized in a way that is not read; None if no name says so."""
    for pattern, how in _QUANTIZED:
        if any(re.search(pattern, name) for name in names):
            return f"is quantized {how}; {_DEQUANTIZE}"
    return None
