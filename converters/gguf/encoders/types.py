"""Every type that is made of blocks: how its numbers are found at each effort, and its bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from fluxconv.converters.gguf.encoders import blocks, rounded, scaled, stepped
from fluxconv.converters.gguf.encoders.lanes import into_lanes, out_of_lanes, shrinkage

if TYPE_CHECKING:
    import torch

Effort = Literal["fast", "best"]


class Encoder(Protocol):
    """One way to make a type's blocks."""

    @property
    def searches(self) -> bool:
        """Whether it takes notice of importances and of `unbiased`."""

    @property
    def chunk(self) -> int:
        """Weights to take at once on a CPU: what is held of them should stay in its cache."""

    def encode(
        self, blocks: torch.Tensor, counts: torch.Tensor | None, *, unbiased: bool
    ) -> torch.Tensor:
        """Weights, fp32 (blocks, weights of a block), and as many importances, to bytes, uint8
        (blocks, bytes of a block). The number of blocks is a multiple of 16."""


@dataclass(frozen=True)
class Scaled:
    """A scale times a level, both searched for; `largest`: see `scaled.fit`."""

    pack: Callable[[scaled.Fit], torch.Tensor]
    levels: scaled.Levels
    search: scaled.Search
    subs: int = 1
    largest: int = 0
    searches: bool = True
    chunk: int = 1 << 16

    def encode(
        self, blocks: torch.Tensor, counts: torch.Tensor | None, *, unbiased: bool
    ) -> torch.Tensor:
        x = into_lanes(blocks, self.subs)
        w = None if counts is None else into_lanes(counts, self.subs)
        found = scaled.fit(x, w, self.levels, self.largest, self.search)
        if unbiased:
            found = found.times(shrinkage(x, w, found.decoded()))
        return out_of_lanes(self.pack(found))


@dataclass(frozen=True)
class Stepped:
    """A minimum and steps above it, both searched for; `largest`: see `stepped.fit`."""

    pack: Callable[[stepped.Fit], torch.Tensor]
    most: int
    search: stepped.Search
    subs: int = 1
    largest: int = 0
    searches: bool = True
    chunk: int = 1 << 16

    def encode(
        self, blocks: torch.Tensor, counts: torch.Tensor | None, *, unbiased: bool
    ) -> torch.Tensor:
        x = into_lanes(blocks, self.subs)
        w = None if counts is None else into_lanes(counts, self.subs)
        found = stepped.fit(x, w, self.most, self.largest, self.search)
        if unbiased:
            found = found.times(shrinkage(x, w, found.decoded()))
        return out_of_lanes(self.pack(found))


@dataclass(frozen=True)
class Rounded:
    """Nothing is searched for."""

    round: Callable[[torch.Tensor], torch.Tensor]
    searches: bool = False
    chunk: int = 1 << 18

    def encode(
        self, blocks: torch.Tensor, counts: torch.Tensor | None, *, unbiased: bool
    ) -> torch.Tensor:
        return self.round(blocks)


def encoder(type_name: str, effort: Effort, *, searching: bool) -> Encoder:
    """The one to use; `searching`: where importances count or bias does, one that takes notice of
    them if there is any."""
    if effort not in ENCODERS[type_name]:
        raise ValueError(f"effort '{effort}' is not one of {', '.join(ENCODERS[type_name])}")
    found = ENCODERS[type_name][effort]
    return ENCODERS[type_name]["best"] if searching and not found.searches else found


def _even(start: float, stop: float, count: int) -> tuple[float, ...]:
    return tuple(start + (stop - start) * i / (count - 1) for i in range(count))


def _both(n: int, low: float, high: float, count: int) -> tuple[float, ...]:
    """Peaks around -n and n - 1, those first that hit a level: what one weight outweighs is alike
    for all of them, and then the first is taken."""
    steps = sorted(_even(low, high, count), key=abs)
    return (*(-n - step for step in steps), *(n - 1 + step for step in steps))


_WIDE = 1 << 17  # for searches that hold little
_ONE = (0, -1, 1)
_TWO = (0, -1, 1, -2, 2)

_K_FAST = stepped.Search(_even(-0.8, 0.8, 5), (-0.4, 0, 0.4), windows=((_ONE, _ONE),), nudged=False)
_K_BEST = replace(_K_FAST, windows=(((0,), _ONE), (_TWO, _ONE), (_ONE, (0,))), nudged=True)
_LONE = stepped.Search(_even(-0.8, 0.8, 7), _even(-0.4, 0.4, 5), repeats=1)
_Q2_K = partial(Stepped, blocks.q2_k, 3, subs=16, largest=15)
_Q4_K = partial(Stepped, blocks.q4_k, 15, subs=8, largest=63)
_Q5_K = partial(Stepped, blocks.q5_k, 31, subs=8, largest=63)

_Q3_K = partial(Scaled, blocks.q3_k, scaled.WholeNumbers(4), subs=16, largest=32)
_Q3_K_FAST = scaled.Search(_even(-4.6, -3.4, 3), (-1,), (_ONE,))
_Q3_K_BEST = scaled.Search(_both(4, -0.9, 0.9, 7), (-1, 1, -0.97, 0.97), (_TWO, _ONE, _ONE))
# Of 64 levels, a sub-block of 16 weights uses few: a larger scale may happen to suit them all.
_Q6_K = partial(Scaled, blocks.q6_k, scaled.WholeNumbers(32), subs=16, largest=128)
_Q6_K_FAST = scaled.Search(_both(32, -0.6, 0.6, 3), (-1,), (_TWO,))
_Q6_K_BEST = scaled.Search(_both(32, -0.6, 0.6, 3), (-1 / 1.1, -1 / 1.15), (tuple(range(21)), _ONE))

_IQ4_PEAKS = (*_even(-141, -100, 9), *_even(90, 125, 9))
_IQ4_XS = partial(Scaled, blocks.iq4_xs, blocks.IQ4, subs=8, largest=32)
_IQ4_NL = Scaled(blocks.iq4_nl, blocks.IQ4, scaled.Search(_IQ4_PEAKS))
_Q8_0 = Rounded(rounded.eight_bits)

#: By type and effort.
ENCODERS: Mapping[str, Mapping[Effort, Encoder]] = {
    "Q2_K": {"fast": _Q2_K(_K_FAST, chunk=_WIDE), "best": _Q2_K(_K_BEST)},
    "Q3_K": {"fast": _Q3_K(_Q3_K_FAST, chunk=_WIDE), "best": _Q3_K(_Q3_K_BEST)},
    "Q4_K": {"fast": _Q4_K(_K_FAST, chunk=_WIDE), "best": _Q4_K(_K_BEST)},
    "Q5_K": {"fast": _Q5_K(_K_FAST, chunk=_WIDE), "best": _Q5_K(_K_BEST)},
    "Q6_K": {"fast": _Q6_K(_Q6_K_FAST, chunk=_WIDE), "best": _Q6_K(_Q6_K_BEST)},
    "IQ4_XS": {
        "fast": _IQ4_XS(scaled.Search(_IQ4_PEAKS, (-1,), (_ONE,))),
        "best": _IQ4_XS(scaled.Search(_IQ4_PEAKS, (-1, 1), (_ONE, _ONE))),
    },
    "IQ4_NL": {"fast": _IQ4_NL, "best": _IQ4_NL},
    "Q4_0": {
        "fast": Rounded(partial(rounded.around_zero, bits=4)),
        "best": Scaled(blocks.q4_0, scaled.WholeNumbers(8), scaled.Search(_both(8, -3, 1, 21))),
    },
    "Q4_1": {
        "fast": Rounded(partial(rounded.above_minimum, bits=4)),
        "best": Stepped(blocks.q4_1, 15, _LONE),
    },
    "Q5_0": {
        "fast": Rounded(partial(rounded.around_zero, bits=5)),
        "best": Scaled(blocks.q5_0, scaled.WholeNumbers(16), scaled.Search(_both(16, -3, 1, 21))),
    },
    "Q5_1": {
        "fast": Rounded(partial(rounded.above_minimum, bits=5)),
        "best": Stepped(blocks.q5_1, 31, _LONE),
    },
    "Q8_0": {"fast": _Q8_0, "best": _Q8_0},
}
