"""The bytes of every type's block, in the order of ggml's structures.

Source: ggml, `ggml-common.h` (the structures), `ggml-quants.c` (`dequantize_row_*`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.gguf.encoders import packing, scaled, stepped
from fluxconv.converters.gguf.encoders.packing import half, packed, whole

if TYPE_CHECKING:
    import torch

#: The levels of IQ4_NL and IQ4_XS (`kvalues_iq4nl`).
IQ4 = scaled.Table((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))


def q2_k(found: stepped.Fit) -> torch.Tensor:
    """A weight is `d * s * q - dmin * m`, in 16 sub-blocks of 16.

    | bytes | |
    |---|---|
    | 16 | s of each sub-block in the lower four bits, m in the upper |
    | 64 | q, two bits each, see `quarters` |
    | 2, 2 | fp16 `d`, `dmin` |
    """
    scales = whole(found.scales) | whole(found.minima) << 4
    return packed(scales, packing.quarters(whole(found.q)), half(found.d), half(found.dmin))


def q3_k(found: scaled.Fit) -> torch.Tensor:
    """A weight is `d * (s - 32) * (q - 4)`, in 16 sub-blocks of 16.

    | bytes | |
    |---|---|
    | 32 | the third bit of each q, see `eighths` |
    | 64 | the lower two bits, see `quarters` |
    | 12 | s, see `six_bits` |
    | 2 | fp16 `d` |
    """
    q = whole(found.levels + 4)
    scales = packing.six_bits(whole(found.scales + 32))
    return packed(packing.eighths(q >> 2), packing.quarters(q & 3), scales, half(found.d))


def q4_k(found: stepped.Fit) -> torch.Tensor:
    """A weight is `d * s * q - dmin * m`, in 8 sub-blocks of 32.

    | bytes | |
    |---|---|
    | 2, 2 | fp16 `d`, `dmin` |
    | 12 | s and m, see `six_bit_pairs` |
    | 128 | q, see `nibbles`, of every 64 weights |
    """
    scales = packing.six_bit_pairs(whole(found.scales), whole(found.minima))
    return packed(half(found.d), half(found.dmin), scales, packing.nibbles(whole(found.q), 32))


def q5_k(found: stepped.Fit) -> torch.Tensor:
    """A weight is `d * s * q - dmin * m`, in 8 sub-blocks of 32.

    | bytes | |
    |---|---|
    | 2, 2 | fp16 `d`, `dmin` |
    | 12 | s and m, see `six_bit_pairs` |
    | 32 | the fifth bit of each q, see `eighths` |
    | 128 | the lower four bits, see `nibbles`, of every 64 weights |
    """
    q = whole(found.q)
    scales = packing.six_bit_pairs(whole(found.scales), whole(found.minima))
    codes = packing.eighths(q >> 4), packing.nibbles(q & 15, 32)
    return packed(half(found.d), half(found.dmin), scales, *codes)


def q6_k(found: scaled.Fit) -> torch.Tensor:
    """A weight is `d * s * (q - 32)`, in 16 sub-blocks of 16.

    | bytes | |
    |---|---|
    | 128 | the lower four bits of each q, see `nibbles`, of every 128 weights |
    | 64 | the upper two bits, see `quarters` |
    | 16 | int8 s |
    | 2 | fp16 `d` |
    """
    q = whole(found.levels + 32)
    codes = packing.nibbles(q & 15, 64), packing.quarters(q >> 4)
    return packed(*codes, whole(found.scales) & 255, half(found.d))


def iq4_xs(found: scaled.Fit) -> torch.Tensor:
    """A weight is `d * (s - 32) * IQ4[q]`, in 8 sub-blocks of 32.

    | bytes | |
    |---|---|
    | 2 | fp16 `d` |
    | 2 | the upper two bits of each s, the first lowest |
    | 4 | the lower four bits of each s, two a byte, the first low |
    | 128 | q, see `nibbles`, of every 32 weights |
    """
    s = whole(found.scales + 32)
    upper, lower = s >> 4, s & 15
    codes = packing.nibbles(lower, 1), packing.nibbles(whole(IQ4.position(found.levels)), 16)
    return packed(half(found.d), packing.pairs_in_a_row(upper), *codes)


def iq4_nl(found: scaled.Fit) -> torch.Tensor:
    """A weight is `d * IQ4[q]`.

    | bytes | |
    |---|---|
    | 2 | fp16 `d` |
    | 16 | q, see `nibbles` |
    """
    return packed(half(found.d), packing.nibbles(whole(IQ4.position(found.levels)), 16))


def q4_0(found: scaled.Fit) -> torch.Tensor:
    """A weight is `d * (q - 8)`.

    | bytes | |
    |---|---|
    | 2 | fp16 `d` |
    | 16 | q, see `nibbles` |
    """
    return packed(half(found.d), packing.nibbles(whole(found.levels + 8), 16))


def q5_0(found: scaled.Fit) -> torch.Tensor:
    """A weight is `d * (q - 16)`.

    | bytes | |
    |---|---|
    | 2 | fp16 `d` |
    | 4 | the fifth bit of each q, see `in_a_row` |
    | 16 | the lower four bits, see `nibbles` |
    """
    q = whole(found.levels + 16)
    return packed(half(found.d), packing.in_a_row(q >> 4), packing.nibbles(q & 15, 16))


def q4_1(found: stepped.Fit) -> torch.Tensor:
    """A weight is `d * q + m`.

    | bytes | |
    |---|---|
    | 2, 2 | fp16 `d`, `m` |
    | 16 | q, see `nibbles` |
    """
    return packed(half(found.d), half(-found.dmin), packing.nibbles(whole(found.q), 16))


def q5_1(found: stepped.Fit) -> torch.Tensor:
    """A weight is `d * q + m`.

    | bytes | |
    |---|---|
    | 2, 2 | fp16 `d`, `m` |
    | 4 | the fifth bit of each q, see `in_a_row` |
    | 16 | the lower four bits, see `nibbles` |
    """
    q = whole(found.q)
    codes = packing.in_a_row(q >> 4), packing.nibbles(q & 15, 16)
    return packed(half(found.d), half(-found.dmin), *codes)
