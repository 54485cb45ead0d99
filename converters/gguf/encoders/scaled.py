"""Types whose weights are a scale times a level: Q3_K, Q6_K, IQ4_XS, Q4_0, Q5_0, IQ4_NL.

A weight is `d * s * level(q)`: `d` fp16, one for the block; `s` a small integer, one for each
sub-block (the blocks of 32 have none); the levels are whole numbers around zero, or IQ4's table.
Sought are the numbers with the least squared error, each weight's error weighted by the importance
of its column.

1. For each sub-block alone, candidates for its scale: those that map the weight of largest
   magnitude to each of `peaks`. With the levels q that a candidate gives, the best scale follows by
   least squares, `sum(w x q) / sum(w q q)`; the candidate that then explains the most is kept.
2. `d` is such that the largest of these scales becomes `start` times the largest integer, for each
   of `starts`; a `start` below 1 or of the other sign gives the integers another grid to fall on.
3. For each window: every sub-block's integer is the one of least error among its neighbours, levels
   rounded anew for each; then `d` follows from all of the levels by least squares, in fp16.
4. Of the starts the one with the least error; and `d` is tried as the fp16 numbers next to it,
   which matters where one weight outweighs all others.

Source of the formats and of the idea of steps 1 and 2: ggml, `ggml-quants.c`, `make_qx_quants`,
`quantize_row_q6_K_impl`, `quantize_row_iq4_nl_impl`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from fluxconv.converters.gguf.encoders.lanes import (
    BESIDE,
    best_of,
    bounded,
    column,
    fp16,
    inverse,
    settled,
)

if TYPE_CHECKING:
    import torch


class Levels(Protocol):
    """The values that a weight divided by its scale can take."""

    @property
    def largest(self) -> float: ...

    def nearest(self, numbers: torch.Tensor) -> torch.Tensor:
        """The level nearest to each number."""


@dataclass(frozen=True)
class WholeNumbers:
    """-n to n - 1."""

    n: int

    @property
    def largest(self) -> float:
        return self.n

    def nearest(self, numbers: torch.Tensor) -> torch.Tensor:
        return bounded(numbers.round(), -self.n, self.n - 1)


@dataclass(frozen=True)
class Table:
    """Any rising values."""

    values: tuple[int, ...]

    @property
    def largest(self) -> float:
        return max(map(abs, self.values))

    def nearest(self, numbers: torch.Tensor) -> torch.Tensor:
        return self._stairs(numbers, self.values)

    def position(self, levels: torch.Tensor) -> torch.Tensor:
        """Where in the table each level stands."""
        return self._stairs(levels, range(len(self.values)))

    def _stairs(self, numbers: torch.Tensor, heights: tuple[int, ...] | range) -> torch.Tensor:
        import torch

        found = torch.full_like(numbers, float(heights[0]))
        for i in range(1, len(heights)):
            middle = (self.values[i - 1] + self.values[i]) / 2
            found = found + torch.where(numbers > middle, float(heights[i] - heights[i - 1]), 0.0)
        return found


@dataclass(frozen=True)
class Search:
    """How far to look; see the module."""

    peaks: tuple[float, ...]
    starts: tuple[float, ...] = ()
    windows: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Fit:
    """What was found: fp32 numbers, (groups, 1 or subs, LANES), and the levels of the weights,
    (groups, subs, weights, LANES)."""

    d: torch.Tensor
    scales: torch.Tensor
    levels: torch.Tensor

    def decoded(self) -> torch.Tensor:
        return settled(self.d * self.scales).unsqueeze(2) * self.levels

    def times(self, factor: torch.Tensor) -> Fit:
        return replace(self, d=fp16(self.d * factor))


def fit(
    x: torch.Tensor, w: torch.Tensor | None, levels: Levels, largest: int, search: Search
) -> Fit:
    """The best blocks found for the weights `x` with the importances `w`, both in lanes.

    `largest`: integer scales go from -largest to largest - 1; 0 for blocks without them.
    """
    import torch

    x = settled(bounded(x, *_limits(levels, largest)))
    scales = _sub_scales(x, w, levels, search.peaks, stored=not largest)
    if not largest:
        return _done(x, w, levels, fp16(scales), torch.ones_like(scales))
    high, low = scales.amax(1, keepdim=True), scales.amin(1, keepdim=True)
    peak = settled(torch.where(high > -low, high, low))
    least = best_d = best_scales = torch.empty(0)
    for number, start in enumerate(search.starts):
        d = fp16(peak / (start * largest))
        whole = _whole(scales * settled(inverse(d)), largest)
        for steps in search.windows:
            whole = _neighbours(x, w, levels, largest, d, whole, steps)
            d = _refit(x, w, levels, d, whole)
        error = _error(x, w, levels, d, whole)
        if number == 0:
            least, best_d, best_scales = error, d, whole
            continue
        better = settled(error < least)
        least = settled(torch.where(better, error, least))
        best_d = settled(torch.where(better, d, best_d))
        best_scales = settled(torch.where(better, whole, best_scales))
    return _done(x, w, levels, best_d, best_scales)


def _done(
    x: torch.Tensor,
    w: torch.Tensor | None,
    levels: Levels,
    d: torch.Tensor,
    whole: torch.Tensor,
) -> Fit:
    near = fp16(d.unsqueeze(2) * column(BESIDE, x))
    errors = _sub_errors(x, w, levels, near * whole.unsqueeze(2)).sum(1, keepdim=True)
    (d,) = best_of(settled(errors), near)
    factor = settled(inverse(d * whole))
    return Fit(d, whole, levels.nearest(x * factor.unsqueeze(2)))


def _limits(levels: Levels, largest: int) -> tuple[float, float]:
    """What the largest fp16 `d` can still give; sums of squares of more would not be finite."""
    most = 65504 * levels.largest * max(largest, 1)
    return -most, most


def _sub_scales(
    x: torch.Tensor,
    w: torch.Tensor | None,
    levels: Levels,
    peaks: tuple[float, ...],
    stored: bool,
) -> torch.Tensor:
    """The best scale of each sub-block alone; `stored`: as fp16 holds it."""
    import torch

    high, low = x.amax(2), x.amin(2)
    peak = settled(torch.where(high > -low, high, low))
    factors = settled(column(peaks, x) * inverse(peak).unsqueeze(2))
    each = x.unsqueeze(2)
    q = levels.nearest(each * factors.unsqueeze(3))
    wq = q if w is None else q * w.unsqueeze(2)
    xq, qq = settled((wq * each).sum(3)), settled((wq * q).sum(3))
    scale = settled(torch.where(qq > 0, xq / qq, 0))
    if stored:
        scale = fp16(scale)
    (best,) = best_of(settled(scale * (scale * qq - 2 * xq)), scale)
    return best


def _whole(numbers: torch.Tensor, largest: int) -> torch.Tensor:
    return settled(bounded(numbers.round(), -largest, largest - 1))


def _neighbours(
    x: torch.Tensor,
    w: torch.Tensor | None,
    levels: Levels,
    largest: int,
    d: torch.Tensor,
    whole: torch.Tensor,
    steps: tuple[int, ...],
) -> torch.Tensor:
    """The integers of least error among `steps` away from zero."""
    import torch

    away = torch.where(whole < 0, -1.0, 1.0)
    choices = whole.unsqueeze(2) + column(steps, x) * settled(away).unsqueeze(2)
    choices = settled(bounded(choices, -largest, largest - 1))
    (best,) = best_of(_sub_errors(x, w, levels, d.unsqueeze(2) * choices), choices)
    return best


def _sub_errors(
    x: torch.Tensor, w: torch.Tensor | None, levels: Levels, scales: torch.Tensor
) -> torch.Tensor:
    """(groups, subs, candidates, LANES) for scales of that shape."""
    scales, factors = settled(scales), settled(inverse(scales))
    each = x.unsqueeze(2)
    off = each - scales.unsqueeze(3) * levels.nearest(each * factors.unsqueeze(3))
    squares = off * off
    return settled((squares if w is None else squares * w.unsqueeze(2)).sum(3))


def _refit(
    x: torch.Tensor,
    w: torch.Tensor | None,
    levels: Levels,
    d: torch.Tensor,
    whole: torch.Tensor,
) -> torch.Tensor:
    import torch

    q = levels.nearest(x * settled(inverse(d * whole)).unsqueeze(2))
    wq = q if w is None else q * w
    xq, qq = settled((wq * x).sum(2)), settled((wq * q).sum(2))
    top = settled((whole * xq).sum(1, keepdim=True))
    bottom = settled((whole * whole * qq).sum(1, keepdim=True))
    return fp16(torch.where(bottom > 0, top / bottom, 0))


def _error(
    x: torch.Tensor, w: torch.Tensor | None, levels: Levels, d: torch.Tensor, whole: torch.Tensor
) -> torch.Tensor:
    errors = _sub_errors(x, w, levels, (d * whole).unsqueeze(2)).squeeze(2)
    return settled(errors.sum(1, keepdim=True))
