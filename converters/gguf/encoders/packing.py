"""Codes of a few bits put together to bytes, in the orders that ggml's blocks have them.

Every function takes and gives int32 in lanes, bytes along dimension 1: (groups, bytes, LANES).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.gguf.encoders.lanes import LANES

if TYPE_CHECKING:
    import torch


def packed(*parts: torch.Tensor) -> torch.Tensor:
    """The parts one after the other, as uint8."""
    import torch

    return torch.cat([part.to(torch.uint8) for part in parts], 1)


def whole(numbers: torch.Tensor) -> torch.Tensor:
    """fp32 whole numbers of any shape (groups, ..., LANES) as int32 (groups, numbers, LANES)."""
    import torch

    return numbers.to(torch.int32).reshape(numbers.shape[0], -1, LANES)


def half(numbers: torch.Tensor) -> torch.Tensor:
    """(groups, 1, LANES) as the two bytes of fp16 each, the lower first."""
    import torch

    bits = numbers.to(torch.float16).view(torch.int16).to(torch.int32)
    return torch.cat((bits & 255, bits >> 8 & 255), 1)


def nibbles(q: torch.Tensor, run: int) -> torch.Tensor:
    """Codes of four bits, two a byte: of every 2 * run codes, code i low and code i + run high."""
    pairs = q.view(q.shape[0], -1, 2, run, LANES)
    return (pairs[:, :, 0] | pairs[:, :, 1] << 4).flatten(1, 2)


def quarters(q: torch.Tensor) -> torch.Tensor:
    """Codes of two bits, four a byte: of every 128, codes i, i + 32, i + 64, i + 96."""
    four = q.view(q.shape[0], -1, 4, 32, LANES)
    joined = four[:, :, 0] | four[:, :, 1] << 2 | four[:, :, 2] << 4 | four[:, :, 3] << 6
    return joined.flatten(1, 2)


def eighths(q: torch.Tensor) -> torch.Tensor:
    """Of 256 codes of one bit, byte i has codes i, i + 32, i + 64 and so on, the first lowest."""
    eight = q.view(q.shape[0], 8, 32, LANES)
    joined = eight[:, 0]
    for bit in range(1, 8):
        joined = joined | eight[:, bit] << bit
    return joined


def in_a_row(q: torch.Tensor) -> torch.Tensor:
    """Codes of one bit, eight neighbours a byte, the first lowest."""
    eight = q.view(q.shape[0], -1, 8, LANES)
    joined = eight[:, :, 0]
    for bit in range(1, 8):
        joined = joined | eight[:, :, bit] << bit
    return joined


def pairs_in_a_row(q: torch.Tensor) -> torch.Tensor:
    """Codes of two bits, four neighbours a byte, the first lowest."""
    four = q.view(q.shape[0], -1, 4, LANES)
    return four[:, :, 0] | four[:, :, 1] << 2 | four[:, :, 2] << 4 | four[:, :, 3] << 6


def six_bit_pairs(s: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Eight scales and eight minima of six bits in 12 bytes (Q4_K, Q5_K; `get_scale_min_k4`).

    | bytes | |
    |---|---|
    | 4 | s0 to s3; in the upper two bits those of s4 to s7 |
    | 4 | m0 to m3; in the upper two bits those of m4 to m7 |
    | 4 | the lower four bits of s4 to s7, and above them those of m4 to m7 |
    """
    import torch

    first, last = slice(0, 4), slice(4, 8)
    return torch.cat(
        (
            s[:, first] | s[:, last] >> 4 << 6,
            m[:, first] | m[:, last] >> 4 << 6,
            s[:, last] & 15 | (m[:, last] & 15) << 4,
        ),
        1,
    )


def six_bits(s: torch.Tensor) -> torch.Tensor:
    """Sixteen scales of six bits in 12 bytes (Q3_K).

    | bytes | |
    |---|---|
    | 8 | the lower four bits of s0 to s7, and above them those of s8 to s15 |
    | 4 | the upper two bits of s0, s4, s8 and s12, and so on |
    """
    import torch

    upper = (s >> 4).view(s.shape[0], 4, 4, LANES)
    joined = upper[:, 0] | upper[:, 1] << 2 | upper[:, 2] << 4 | upper[:, 3] << 6
    return torch.cat((s[:, :8] & 15 | (s[:, 8:] & 15) << 4, joined), 1)
