"""Blocks of 32 whose numbers follow from their largest weight, each weight rounded: Q8_0, and the
quick way to Q4_0, Q4_1, Q5_0 and Q5_1.

Arithmetic: ggml, `ggml-quants.c`, `quantize_row_*_ref`, in the order of operations that gguf-py's
`quants.py` has, so that the bytes are the same, but for the signs of zeros. Where they
leave something to chance, it is fixed here, so that a CPU and a GPU agree: no infinity or NaN is
cast to an integer. A scale that fp16 cannot hold becomes its largest number instead of infinity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.gguf.encoders import scaled, stepped
from fluxconv.converters.gguf.encoders.lanes import bounded, fp16, settled

if TYPE_CHECKING:
    import torch

# The last float before one half: with it added, truncation rounds halves away from zero, and
# nothing below a half up.
_HALF = 0.5 - 2**-25


def eight_bits(x: torch.Tensor) -> scaled.Fit:
    """Q8_0: `d` is the largest magnitude / 127."""
    scale = _held(_divided(x.abs().amax(2), 127))
    scaled = x * _inverse(scale).unsqueeze(2)
    rounded = scaled + scaled.sign() * _HALF
    return _scaled(scale, bounded(rounded.trunc(), -127, 127))


def around_zero(x: torch.Tensor, bits: int) -> scaled.Fit:
    """Q4_0 and Q5_0: `d` is the weight of largest magnitude, the first of equals, / -middle."""
    import torch

    middle = 1 << bits - 1
    scale = _held(_divided(_peak(x), -middle))
    inverse = _inverse(scale)
    # Blocks of zeros get the middle code. Those whose scale is too small to have an inverse are
    # zeros in fp16, whatever the code; gguf-py casts infinities to 0 there.
    shift = settled(torch.where((inverse == 0) & (scale != 0), 0, middle + 0.5))
    steps = x * inverse.unsqueeze(2) + shift.unsqueeze(2)
    return _scaled(scale, bounded(steps.trunc(), 0, 2 * middle - 1) - middle)


def above_minimum(x: torch.Tensor, bits: int) -> stepped.Fit:
    """Q4_1 and Q5_1: `m` is the minimum, `d` (maximum - m) / most."""
    import torch

    most = (1 << bits) - 1
    minimum = _held(x.amin(2))
    scale = _held(_divided(x.amax(2) - minimum, most))
    inverse = _inverse(scale)
    # Without an inverse every code is 0; the difference could overflow.
    base = settled(torch.where(inverse == 0, 0, minimum))
    steps = (x - base.unsqueeze(2)) * inverse.unsqueeze(2) + 0.5
    one = torch.ones_like(scale)
    return stepped.Fit(fp16(scale), fp16(-minimum), one, one, bounded(steps.trunc(), 0, most))


def _scaled(scale: torch.Tensor, levels: torch.Tensor) -> scaled.Fit:
    import torch

    return scaled.Fit(fp16(scale), torch.ones_like(scale), levels)


def _divided(numbers: torch.Tensor, divisor: int) -> torch.Tensor:
    # By a plain number, CUDA multiplies with its rounded reciprocal instead.
    return settled(numbers / numbers.new_full((), divisor))


def _held(number: torch.Tensor) -> torch.Tensor:
    """As far as fp16 reaches."""
    return settled(bounded(number, -65504, 65504))


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    """1 / scale, and 0 where that is infinite."""
    import torch

    inverse = 1 / scale
    return settled(torch.where(inverse.isinf(), 0, inverse))


def _peak(x: torch.Tensor) -> torch.Tensor:
    """The weight of largest magnitude of each sub-block, the first of equals."""
    import torch

    size = settled(x.abs().amax(2))
    even = torch.arange(0, 2 * x.shape[2], 2, dtype=torch.float32, device=x.device)
    even = even.view(1, 1, -1, 1)
    found = x.abs() == size.unsqueeze(2)
    # Twice the place of the first, and one more if it is negative.
    first = torch.where(found, torch.where(x < 0, even + 1, even), 2 * x.shape[2]).amin(2)
    return settled(torch.where(first.remainder(2) == 1, -size, size))
