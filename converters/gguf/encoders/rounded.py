"""Blocks of 32 whose numbers follow from their largest weight, each weight rounded: Q8_0, and the
quick way to Q4_0, Q4_1, Q5_0 and Q5_1.

Arithmetic: ggml, `ggml-quants.c`, `quantize_row_*_ref`, in the order of operations that gguf-py's
`quants.py` has, so that the bytes are the same, but for the signs of zeros. Where they leave
something to chance, it is fixed here, so that a CPU and a GPU agree: no infinity or NaN is cast to
an integer. A scale that fp16 cannot hold becomes its largest number instead of infinity.

So little is done with a weight that bringing it into lanes would cost as much: blocks stay rows,
(blocks, 32), and their bytes are put together from int16, (blocks, bytes / 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.gguf.encoders.lanes import bounded, settled

if TYPE_CHECKING:
    import torch

# The last float before one half: with it added, truncation rounds halves away from zero, and
# nothing below a half up.
_HALF = 0.5 - 2**-25


def eight_bits(x: torch.Tensor) -> torch.Tensor:
    """Q8_0: a weight is `d * q`.

    | bytes | |
    |---|---|
    | 2 | fp16 `d`: the largest magnitude / 127 |
    | 32 | int8 q |
    """
    import torch

    scale = _held(_divided(x.abs().amax(1), 127))
    scaled = x * _inverse(scale).unsqueeze(1)
    away = scaled + torch.where(scaled < 0, -_HALF, _HALF)
    rounded = settled(bounded(away, -127.5, 127.5).to(torch.int8))
    return _joined(_half(scale), rounded.view(torch.int16))


def around_zero(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Q4_0 and Q5_0: a weight is `d * (q - middle)`.

    | bytes | |
    |---|---|
    | 2 | fp16 `d`: the weight of largest magnitude, the first of equals, / -middle |
    | 0 or 4 | Q5_0: the fifth bits, see `_packed` |
    | 16 | the lower four bits |
    """
    import torch

    middle = 1 << bits - 1
    scale = _held(_divided(_peak(x), -middle))
    inverse = _inverse(scale)
    # Blocks of zeros get the middle code. Those whose scale is too small to have an inverse are
    # zeros in fp16, whatever the code; gguf-py casts infinities to 0 there.
    shift = settled(torch.where((inverse == 0) & (scale != 0), 0, middle + 0.5))
    steps = x * inverse.unsqueeze(1) + shift.unsqueeze(1)
    return _joined(_half(scale), *_packed(bounded(steps.trunc(), 0, 2 * middle - 1), bits))


def above_minimum(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Q4_1 and Q5_1: a weight is `d * q + m`.

    | bytes | |
    |---|---|
    | 2, 2 | fp16 `d`, (maximum - m) / most, and `m`, the minimum |
    | 0 or 4 | Q5_1: the fifth bits, see `_packed` |
    | 16 | the lower four bits |
    """
    import torch

    most = (1 << bits) - 1
    minimum = _held(x.amin(1))
    scale = _held(_divided(x.amax(1) - minimum, most))
    inverse = _inverse(scale)
    # Without an inverse every code is 0; the difference could overflow.
    base = settled(torch.where(inverse == 0, 0, minimum))
    steps = (x - base.unsqueeze(1)) * inverse.unsqueeze(1) + 0.5
    codes = _packed(bounded(steps.trunc(), 0, most), bits)
    return _joined(_half(scale), _half(minimum), *codes)


def _divided(numbers: torch.Tensor, divisor: int) -> torch.Tensor:
    # By a plain number, CUDA multiplies with its rounded reciprocal instead.
    return numbers / numbers.new_full((), divisor)


def _held(numbers: torch.Tensor) -> torch.Tensor:
    """As far as fp16 reaches."""
    return settled(bounded(numbers, -65504, 65504))


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    """1 / scale, and 0 where that is infinite."""
    import torch

    inverse = 1 / scale
    return settled(torch.where(inverse.isinf(), 0, inverse))


def _peak(x: torch.Tensor) -> torch.Tensor:
    """The weight of largest magnitude of each block, the first of equals."""
    import torch

    high, low = settled(x.amax(1)), settled(x.amin(1))
    # Where both are as large, the first tells: it counts for more than all after it.
    counts = settled(torch.arange(0, -2 * x.shape[1], -2, device=x.device).to(x.dtype).exp2())
    highs = torch.where(x == high.unsqueeze(1), counts, 0)
    lows = torch.where(x == low.unsqueeze(1), counts, 0)
    lead = (highs - lows).sum(1)
    return settled(torch.where((high > -low) | ((high == -low) & (lead > 0)), high, low))


def _half(numbers: torch.Tensor) -> torch.Tensor:
    """(blocks,) as fp16, in int16 (blocks, 1)."""
    import torch

    return numbers.to(torch.float16).view(torch.int16).unsqueeze(1)


def _packed(q: torch.Tensor, bits: int) -> tuple[torch.Tensor, ...]:
    """Codes of four or five bits, fp32 (blocks, 32), in int16: byte i has weight i low and weight
    i + 16 high; before these, bit i of 32, the lowest first, is the fifth bit of weight i."""
    import torch

    if bits == 4:
        return (_nibbles(q),)
    fifth = (q >= 16).to(torch.float32)
    places = torch.arange(16, dtype=torch.float32, device=q.device).exp2()
    sums = (fifth.view(-1, 2, 16) * places).sum(2)  # below 2 ** 16, so exact
    return settled(sums).to(torch.int32).to(torch.int16), _nibbles(q - 16 * fifth)


def _nibbles(q: torch.Tensor) -> torch.Tensor:
    import torch

    return settled((q[:, :16] + 16 * q[:, 16:]).to(torch.uint8)).view(torch.int16)


def _joined(*parts: torch.Tensor) -> torch.Tensor:
    """The parts one after the other, as bytes."""
    import torch

    return torch.cat(parts, 1).view(torch.uint8)
