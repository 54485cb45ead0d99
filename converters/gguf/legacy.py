"""ggml's legacy block formats: 32 weights of a row with one scale.

Each encoder takes blocks (n, 32), fp32 and finite, leaves them as they are, and returns the bytes
(n, bytes of a block). Layouts: ggml, `ggml-common.h`. Arithmetic: `quantize_row_*_ref` in
`ggml-quants.c`, in the order of operations that gguf-py's `quants.py` has, so that the bytes are
the same. Where they leave something to chance, it is fixed here, so that a CPU and a GPU agree: no
infinity or NaN is cast to an integer, and of 0 and -0 the first is the minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The last float before one half: with it added, truncation rounds halves away from zero, and
# nothing below a half up.
_HALF = 0.5 - 2**-25


def q8_0(blocks: torch.Tensor) -> torch.Tensor:
    """A weight is `d * q`.

    | bytes | |
    |---|---|
    | 2 | fp16 `d`: the largest magnitude / 127 |
    | 32 | int8 `q` of each weight |
    """
    import torch

    scale = _divided(blocks.abs().amax(1, keepdim=True), 127)
    scaled = blocks * _inverse(scale)
    codes = scaled.add_(scaled.sign(), alpha=_HALF).to(torch.int8).view(torch.uint8)
    return torch.cat((_fp16(scale), codes), 1)


def around_zero(blocks: torch.Tensor, bits: int) -> torch.Tensor:
    """Q4_0 and Q5_0: a weight is `d * (q - 2 ** (bits - 1))`, `q` of `bits` bits.

    | bytes | |
    |---|---|
    | 2 | fp16 `d`: the weight of largest magnitude / -8 (Q4_0) or -16 (Q5_0) |
    | 0 or 4 | Q5_0: the fifth bits, see `_fifth_bits` |
    | 16 | the lower four bits, see `_nibbles` |
    """
    import torch

    middle = 1 << bits - 1
    scale = _divided(_peak(blocks), -middle)
    inverse = _inverse(scale)
    # Blocks of zeros get the middle code. Those whose scale is too small to have an inverse are
    # zeros in fp16, whatever the code; gguf-py casts infinities to 0 there.
    shift = torch.where((inverse == 0) & (scale != 0), 0, middle + 0.5)
    codes = (blocks * inverse).add_(shift).clamp_(max=2 * middle - 1)
    return _packed((_fp16(scale),), codes, bits)


def above_minimum(blocks: torch.Tensor, bits: int) -> torch.Tensor:
    """Q4_1 and Q5_1: a weight is `d * q + m`, `q` of `bits` bits.

    | bytes | |
    |---|---|
    | 2 | fp16 `d`: (maximum - minimum) / 15 (Q4_1) or 31 (Q5_1) |
    | 2 | fp16 `m`: the minimum |
    | 0 or 4 | Q5_1: the fifth bits, see `_fifth_bits` |
    | 16 | the lower four bits, see `_nibbles` |
    """
    import torch

    minimum = _minimum(blocks)
    scale = _divided(blocks.amax(1, keepdim=True) - minimum, (1 << bits) - 1)
    inverse = _inverse(scale)
    # Without an inverse every code is 0; the difference could overflow.
    codes = (blocks - torch.where(inverse == 0, 0, minimum)).mul_(inverse).add_(0.5)
    return _packed((_fp16(scale), _fp16(minimum)), codes, bits)


LEGACY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Q8_0": q8_0,
    "Q5_1": partial(above_minimum, bits=5),
    "Q5_0": partial(around_zero, bits=5),
    "Q4_1": partial(above_minimum, bits=4),
    "Q4_0": partial(around_zero, bits=4),
}


def _divided(numbers: torch.Tensor, divisor: int) -> torch.Tensor:
    # By a plain number, CUDA multiplies with its rounded reciprocal instead.
    return numbers / numbers.new_full((), divisor)


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    """1 / scale, and 0 where that is infinite."""
    inverse = scale.reciprocal()
    return inverse.masked_fill_(inverse.isinf(), 0)


def _peak(blocks: torch.Tensor) -> torch.Tensor:
    """The weight of largest magnitude in each block (n, 1), the first of equals."""
    import torch

    high, low = blocks.amax(1, keepdim=True), blocks.amin(1, keepdim=True)
    peak = torch.where(high > -low, high, low)
    return _settled(peak, high == -low, blocks, lambda some: some.abs().argmax(1, keepdim=True))


def _minimum(blocks: torch.Tensor) -> torch.Tensor:
    """The minimum of each block (n, 1), the first of equals: that matters for 0 and -0."""
    low = blocks.amin(1, keepdim=True)
    return _settled(low, low == 0, blocks, lambda some: some.argmin(1, keepdim=True))


def _settled(
    found: torch.Tensor,
    doubtful: torch.Tensor,
    blocks: torch.Tensor,
    position: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """`found` (n, 1), but in doubtful blocks the weight at `position`.

    argmax and argmin give the first of equals, at a third of the speed of amax and amin.
    """
    (rows,) = doubtful.flatten().nonzero(as_tuple=True)
    if len(rows):
        some = blocks[rows]
        found[rows] = some.gather(1, position(some))
    return found


def _packed(head: tuple[torch.Tensor, ...], codes: torch.Tensor, bits: int) -> torch.Tensor:
    """`head`, and the codes truncated to integers, in blocks of bytes."""
    import torch

    whole = codes.to(torch.int8).view(torch.uint8)
    if bits == 5:
        head = (*head, _fifth_bits(whole))
        whole &= 15
    return torch.cat((*head, _nibbles(whole)), 1)


def _nibbles(codes: torch.Tensor) -> torch.Tensor:
    """(n, 32) codes of four bits as (n, 16): byte i has weight i low and weight i + 16 high."""
    return codes[:, :16].add(codes[:, 16:], alpha=16)


def _fifth_bits(codes: torch.Tensor) -> torch.Tensor:
    """Bit 4 of (n, 32) codes as (n, 4): bit i of the 32, lowest first, is weight i's."""
    import torch

    # Eight codes at a time: their bits, one in each byte, are moved to the top byte by a product.
    ones = (codes.view(torch.int64) >> 4) & 0x0101010101010101
    return (ones * 0x0102040810204080 >> 56).to(torch.uint8)


def _fp16(numbers: torch.Tensor) -> torch.Tensor:
    """(n, 1) as the two bytes of fp16 each."""
    import torch

    return numbers.to(torch.float16).view(torch.uint8)
