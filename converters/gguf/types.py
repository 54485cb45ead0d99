"""The types that a tensor can be stored as, as the field names them.

Source: ggml, `ggml-common.h`; gguf-py has the same sizes in `GGML_QUANT_SIZES`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockType:
    """One type: a block of `weights` neighbours in a row takes `nbytes` bytes.

    `fallback` is the type for rows that are no whole number of blocks.
    """

    name: str
    weights: int
    nbytes: int
    fallback: str = ""

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * self.nbytes / self.weights

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` weights, which must be whole blocks."""
        assert columns % self.weights == 0
        return columns // self.weights * self.nbytes


#: Every type that can be written, by name.
TYPES = {
    each.name: each
    for each in (
        BlockType("F32", 1, 4),
        BlockType("F16", 1, 2),
        BlockType("BF16", 1, 2),
        BlockType("Q8_0", 32, 2 + 32, "F16"),
        BlockType("Q5_1", 32, 2 + 2 + 4 + 16, "F16"),
        BlockType("Q5_0", 32, 2 + 4 + 16, "F16"),
        BlockType("Q4_1", 32, 2 + 2 + 16, "F16"),
        BlockType("Q4_0", 32, 2 + 16, "F16"),
        BlockType("IQ4_NL", 32, 2 + 16, "F16"),
        BlockType("IQ4_XS", 256, 2 + 2 + 4 + 128, "IQ4_NL"),
        BlockType("Q6_K", 256, 128 + 64 + 16 + 2, "Q8_0"),
        BlockType("Q5_K", 256, 2 + 2 + 12 + 32 + 128, "Q5_1"),
        BlockType("Q4_K", 256, 2 + 2 + 12 + 128, "Q5_0"),
        BlockType("Q3_K", 256, 32 + 64 + 12 + 2, "IQ4_NL"),
        BlockType("Q2_K", 256, 16 + 64 + 2 + 2, "IQ4_NL"),
    )
}


def fitting(name: str, columns: int) -> BlockType:
    """The type `name`, or the first of its fallbacks that rows of `columns` weights fill."""
    found = TYPES[name]
    while columns % found.weights:
        found = TYPES[found.fallback]
    return found
