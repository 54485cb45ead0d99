"""Types whose weights are a minimum and steps above it: Q2_K, Q4_K, Q5_K, Q4_1, Q5_1.

A weight is `d * s * q - dmin * m`: `d` and `dmin` fp16, one each for the block; `s` and `m` small
integers that are not negative, one each for a sub-block; `q` from 0 to `most`. The blocks of 32
have no integers: a weight is `d * q - dmin`, and there `dmin`, stored with the other sign, may be
negative. Sought are the numbers with the least squared error, each weight's error weighted by the
importance of its column.

1. For each sub-block alone, candidates: a range of q a little wider or narrower than from the least
   to the largest weight (`stretches`), its lower end moved (`shifts`; both in steps of q). With the
   q that a candidate gives, the best scale and minimum follow by least squares,

       [sum w q q   sum w q] [scale  ]   [sum w q x]
       [sum w q     sum w  ] [minimum] = [sum w x  ]

   and the candidate that then explains the most is kept. `repeats`: round and solve again.
2. `d` and `dmin` are such that the largest scale and minimum become the largest integers.
3. For each window: every sub-block takes the pair (s, m) of least error, q rounded anew for each,
   among neighbours of s and, since a larger scale wants a lower minimum, of the m that goes with
   that s for the mean q. Then `d` and `dmin` follow from all of the block's q by least squares, in
   fp16.
4. If `nudged`, `d` and `dmin` are tried as the fp16 numbers next to them, which matters where one
   weight outweighs all others.

Source of the formats and of the idea of steps 1 and 2: ggml, `ggml-quants.c`, `make_qkx2_quants`,
`quantize_row_q4_K_impl`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from fluxconv.converters.gguf.encoders.lanes import (
    BESIDE,
    best_of,
    bounded,
    column,
    fp16,
    inverse,
    levelled,
    settled,
)

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Search:
    """How far to look; see the module. A window is the steps of s and those of m."""

    stretches: tuple[float, ...]
    shifts: tuple[float, ...] = (0,)
    repeats: int = 0
    windows: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    nudged: bool = True


@dataclass(frozen=True)
class Fit:
    """What was found: fp32 numbers, (groups, 1 or subs, LANES), and q of the weights,
    (groups, subs, weights, LANES)."""

    d: torch.Tensor
    dmin: torch.Tensor
    scales: torch.Tensor
    minima: torch.Tensor
    q: torch.Tensor

    def decoded(self) -> torch.Tensor:
        scale, minimum = settled(self.d * self.scales), settled(self.dmin * self.minima)
        return scale.unsqueeze(2) * self.q - minimum.unsqueeze(2)

    def times(self, factor: torch.Tensor) -> Fit:
        return replace(self, d=fp16(self.d * factor), dmin=fp16(self.dmin * factor))


@dataclass(frozen=True)
class _Sums:
    """Over the weights of each sub-block, q being theirs."""

    q: torch.Tensor
    qq: torch.Tensor
    qx: torch.Tensor


@dataclass(frozen=True)
class _Weights:
    """The weights, their importances or None, and the sums that do not depend on q."""

    x: torch.Tensor
    w: torch.Tensor | None
    sum_w: torch.Tensor
    sum_x: torch.Tensor
    most: int


def fit(x: torch.Tensor, w: torch.Tensor | None, most: int, largest: int, search: Search) -> Fit:
    """The best blocks found for the weights `x` with the importances `w`, both in lanes.

    `largest`: integer scales and minima go from 0 to `largest`; 0 for blocks without them.
    """
    import torch

    limit = 65504.0 * most * max(largest, 1)  # sums of squares of more would not be finite
    x = settled(bounded(x, -limit, limit))
    sum_w = torch.full_like(x[:, :, 0], x.shape[2]) if w is None else w.sum(2)
    sum_x = (x if w is None else x * w).sum(2)
    weights = _Weights(x, w, settled(sum_w), settled(sum_x), most)
    scales, minima = _sub_blocks(weights, search, below_zero=largest > 0)
    if not largest:
        one = torch.ones_like(scales)
        return _done(weights, fp16(scales), fp16(minima), one, one, search.nudged)
    d = fp16(scales.amax(1, keepdim=True) / largest)
    dmin = fp16(minima.amax(1, keepdim=True) / largest)
    s = _whole(scales * settled(inverse(d)), largest)
    m = _whole(minima * settled(inverse(dmin)), largest)
    sums = _sums(weights, d * s, dmin * m)
    for steps in search.windows:
        s, m = _neighbours(weights, sums, d, dmin, s, m, largest, steps)
        sums = _sums(weights, d * s, dmin * m)
        d, dmin = _refit(weights, sums, s, m)
    return _done(weights, d, dmin, s, m, search.nudged)


def _done(
    weights: _Weights,
    d: torch.Tensor,
    dmin: torch.Tensor,
    s: torch.Tensor,
    m: torch.Tensor,
    nudged: bool,
) -> Fit:
    if nudged:
        pairs = tuple(pair for pair in product(BESIDE, BESIDE) if 1 in pair)
        near = fp16(d.unsqueeze(2) * column(tuple(pair[0] for pair in pairs), d))
        near_min = fp16(dmin.unsqueeze(2) * column(tuple(pair[1] for pair in pairs), d))
        errors = _sub_errors(weights, near * s.unsqueeze(2), near_min * m.unsqueeze(2))
        d, dmin = best_of(settled(errors.sum(1, keepdim=True)), near, near_min)
    return Fit(d, dmin, s, m, _q(weights, d * s, dmin * m))


def _sub_errors(weights: _Weights, scale: torch.Tensor, minimum: torch.Tensor) -> torch.Tensor:
    """(groups, subs, candidates, LANES) for scales and minima of that shape."""
    scale, minimum = settled(scale), settled(minimum)
    factor = settled(inverse(scale))
    above = weights.x.unsqueeze(2) + minimum.unsqueeze(3)
    q = levelled(above * factor.unsqueeze(3), weights.most)
    off = above - scale.unsqueeze(3) * q
    squares = off * off
    return settled((squares if weights.w is None else squares * weights.w.unsqueeze(2)).sum(3))


def _sub_blocks(
    weights: _Weights, search: Search, below_zero: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and minimum, its sign turned, of each sub-block; `below_zero`: none negative."""
    import torch

    x, most = weights.x, weights.most
    high, low = settled(x.amax(2)), settled(x.amin(2))
    if below_zero:
        low = settled(low.clamp(max=0))
    pairs = tuple(product(search.stretches, search.shifts))
    factors = tuple((most + stretch) / (1 - shift / most) for stretch, shift in pairs)
    shifts = tuple(shift / most * each for (_, shift), each in zip(pairs, factors, strict=True))
    scale = minimum = gain = torch.empty(0)
    factor = settled(column(factors, x) * settled(inverse(high - low)).unsqueeze(2))
    offset = settled(-low.unsqueeze(2) * factor - column(shifts, x))
    for number in range(1 + search.repeats):
        if number:
            factor = settled(inverse(scale))
            offset = settled(minimum * factor)
        stored = number == search.repeats and not below_zero
        scale, minimum, gain = _solved(weights, factor, offset, below_zero, stored)
    best, lowest = best_of(settled(torch.where(scale >= 0, -gain, 3e38)), scale, minimum)
    return best, lowest


def _solved(
    weights: _Weights,
    factor: torch.Tensor,
    offset: torch.Tensor,
    below_zero: bool,
    stored: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Least squares for the q that each candidate gives: scale, minimum, and what they explain;
    `stored`: as fp16 holds them."""
    import torch

    each = weights.x.unsqueeze(2)
    q = levelled(each * factor.unsqueeze(3) + offset.unsqueeze(3), weights.most)
    wq = q if weights.w is None else q * weights.w.unsqueeze(2)
    sum_q, qq, qx = settled(wq.sum(3)), settled((wq * q).sum(3)), settled((wq * each).sum(3))
    sum_w, sum_x = weights.sum_w.unsqueeze(2), weights.sum_x.unsqueeze(2)
    determinant = sum_w * qq - sum_q * sum_q
    lift = qx * sum_q - qq * sum_x
    # All q alike, or a minimum that would be below zero: only the scale can be found.
    both = determinant > 1e-6 * sum_w * qq
    flat = -sum_x * inverse(sum_w)
    if below_zero:
        both = both & (lift >= 0)
        flat = flat.relu()
    over = settled(inverse(torch.where(both, determinant, qq)))
    scale = torch.where(both, sum_w * qx - sum_x * sum_q, qx) * over
    minimum = torch.where(both, lift * over, torch.where(qq > 0, 0, settled(flat)))
    held = fp16 if stored else settled
    scale, minimum = held(scale), held(minimum)
    explained = 2 * (scale * qx - minimum * sum_x)
    size = scale * (scale * qq - 2 * minimum * sum_q) + minimum**2 * sum_w
    return scale, minimum, settled(explained - size)


def _q(weights: _Weights, scale: torch.Tensor, minimum: torch.Tensor) -> torch.Tensor:
    factor = settled(inverse(settled(scale)))
    offset = settled(minimum * factor)
    return levelled(weights.x * factor.unsqueeze(2) + offset.unsqueeze(2), weights.most)


def _sums(weights: _Weights, scale: torch.Tensor, minimum: torch.Tensor) -> _Sums:
    q = _q(weights, scale, minimum)
    wq = q if weights.w is None else q * weights.w
    return _Sums(settled(wq.sum(2)), settled((wq * q).sum(2)), settled((wq * weights.x).sum(2)))


def _whole(numbers: torch.Tensor, largest: int) -> torch.Tensor:
    return settled(levelled(numbers, largest))


def _neighbours(
    weights: _Weights,
    sums: _Sums,
    d: torch.Tensor,
    dmin: torch.Tensor,
    s: torch.Tensor,
    m: torch.Tensor,
    largest: int,
    steps: tuple[tuple[int, ...], tuple[int, ...]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of integers of least error."""
    pairs = tuple(product(*steps))
    scales = settled(levelled(s.unsqueeze(2) + column(tuple(p[0] for p in pairs), d), largest))
    mean_q = sums.q * inverse(weights.sum_w)
    slope = settled(d * mean_q * inverse(dmin)).unsqueeze(2)
    along = m.unsqueeze(2) + (scales - s.unsqueeze(2)) * slope
    minima = settled(levelled(along + column(tuple(p[1] for p in pairs), d), largest))
    errors = _sub_errors(weights, d.unsqueeze(2) * scales, dmin.unsqueeze(2) * minima)
    best, lowest = best_of(errors, scales, minima)
    return best, lowest


def _refit(
    weights: _Weights, sums: _Sums, s: torch.Tensor, m: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`d` and `dmin` of the block by least squares; neither is negative."""
    import torch

    def over_block(numbers: torch.Tensor) -> torch.Tensor:
        return settled(numbers.sum(1, keepdim=True))

    ss, sm, mm = (
        over_block(s * s * sums.qq),
        over_block(s * m * sums.q),
        over_block(m * m * weights.sum_w),
    )
    sx, mx = over_block(s * sums.qx), over_block(m * weights.sum_x)
    determinant = ss * mm - sm * sm
    regular = settled(determinant > 1e-6 * ss * mm)
    over = settled(torch.where(regular, 1 / determinant, 0))
    d = torch.where(regular, (sx * mm - sm * mx) * over, sx * inverse(ss))
    dmin = torch.where(
        regular, (sx * sm - ss * mx) * over, torch.where(ss > 0, 0, -mx * inverse(mm))
    )
    return fp16(d.clamp(min=0)), fp16(dmin.clamp(min=0))
