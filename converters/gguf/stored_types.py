"""Every type that a tensor of somebody's GGUF file may have, those that we write among them.

Numbers: `enum ggml_type` in ggml's `ggml.h`. Sizes: ggml's `ggml-common.h`; gguf-py has the same in
`GGML_QUANT_SIZES`, but for Q8_1, where it counts 4 bytes for a number of 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.gguf.types import TYPES, BlockType

if TYPE_CHECKING:
    import torch

#: Types that gguf-py cannot decode: two that ggml has in memory only, one too new, and integers.
UNDECODED = frozenset({"Q8_1", "Q8_K", "Q1_0", "I8", "I16", "I32", "I64", "F64"})

_OTHERS = {
    each.name: each
    for each in (
        BlockType("Q8_1", 32, 2 + 2 + 32),
        BlockType("Q8_K", 256, 4 + 256 + 32),
        BlockType("IQ3_S", 256, 2 + 64 + 8 + 32 + 4),
        BlockType("IQ3_XXS", 256, 2 + 64 + 32),
        BlockType("IQ2_S", 256, 2 + 64 + 8 + 8),
        BlockType("IQ2_XS", 256, 2 + 64 + 8),
        BlockType("IQ2_XXS", 256, 2 + 64),
        BlockType("IQ1_M", 256, 32 + 16 + 8),
        BlockType("IQ1_S", 256, 2 + 32 + 16),
        BlockType("TQ2_0", 256, 64 + 2),
        BlockType("TQ1_0", 256, 48 + 4 + 2),
        BlockType("MXFP4", 32, 1 + 16),
        BlockType("NVFP4", 64, 4 + 32),
        BlockType("Q1_0", 128, 2 + 16),
        BlockType("F64", 1, 8),
        BlockType("I64", 1, 8),
        BlockType("I32", 1, 4),
        BlockType("I16", 1, 2),
        BlockType("I8", 1, 1),
    )
}
_NAMES = {
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1"},
    **{10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K"},
    **{16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S"},
    **{22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64"},
    **{29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0"},
}
_BY_NAME = TYPES | _OTHERS
#: The types by the number that a file has for them.
STORED_TYPES = {number: _BY_NAME[name] for number, name in _NAMES.items()}

_PIECE = 1 << 22  # weights decoded at once


def decode_stored(raw: torch.Tensor, type_name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Bytes (1-D uint8, on the CPU) of a tensor of any type not `UNDECODED`, as bf16 of `shape`.

    By gguf-py, in pieces of rows: a fused weight of Flux has 66 million numbers, which would take
    four bytes each on the way.
    """
    import torch
    from gguf import GGMLQuantizationType, quants

    found = torch.empty(shape, dtype=torch.bfloat16)
    if not found.numel():
        return found
    flat = found.view(-1, shape[-1] if shape else 1)
    rows = raw.numpy().reshape(len(flat), _BY_NAME[type_name].row_bytes(flat.shape[1]))
    count = max(1, _PIECE // flat.shape[1])
    for start in range(0, len(flat), count):
        piece = slice(start, start + count)
        decoded = quants.dequantize(rows[piece], GGMLQuantizationType[type_name])
        flat[piece] = torch.from_numpy(decoded)
    return found
