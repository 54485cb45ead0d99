"""How the encoders lay out their numbers, so that every step is the same for many blocks at once.

Sixteen blocks of 256 weights (or of 32) lie side by side: a tensor of weights has the shape
(groups, sub-blocks, weights of a sub-block, LANES), one of numbers a sub-block (groups, sub-blocks,
LANES). No step looks from one lane to another, so the bytes of a block do not depend on what is
encoded beside it; on a CPU a lane is a lane of its vector registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LANES = 16
#: Times these, rounded to fp16, a number is itself and the two next to it.
BESIDE = (1.0, 1 - 0.75 / 1024, 1 + 0.75 / 1024)


def into_lanes(blocks: torch.Tensor, subs: int) -> torch.Tensor:
    """(groups * LANES, weights of a block) as (groups, subs, weights of a sub-block, LANES)."""
    _, columns = blocks.shape
    lanes = settled(blocks.view(-1, LANES, columns).transpose(1, 2))
    return lanes.view(-1, subs, columns // subs, LANES)


def out_of_lanes(encoded: torch.Tensor) -> torch.Tensor:
    """(groups, bytes, LANES) as (groups * LANES, bytes)."""
    return encoded.transpose(1, 2).contiguous().flatten(0, 1)


def settled(numbers: torch.Tensor) -> torch.Tensor:
    """The same numbers. The compiler puts them into memory here, where it would otherwise compute
    them again for every weight that uses them."""
    numbers = numbers.contiguous()
    return numbers.as_strided(numbers.shape, numbers.stride())


def best_of(errors: torch.Tensor, *choices: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of (groups, subs, candidates, LANES) `choices`, those with the least of `errors`, the first
    of equals: (groups, subs, LANES)."""
    import torch

    least, *found = (each[:, :, 0] for each in (errors, *choices))
    for number in range(1, errors.shape[2]):
        better = errors[:, :, number] < least
        least = torch.where(better, errors[:, :, number], least)
        pairs = zip(found, choices, strict=True)
        found = [torch.where(better, new[:, :, number], old) for old, new in pairs]
    return tuple(map(settled, found))


def inverse(numbers: torch.Tensor) -> torch.Tensor:
    """1 / numbers, and 0 where that is too large for fp32."""
    import torch

    found = 1 / numbers
    return torch.where(found.abs() < torch.inf, found, 0)


def bounded(numbers: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Clamped, in fewer instructions than `clamp` compiles to, which lets NaN through."""
    import torch

    numbers = torch.where(numbers < low, low, numbers)
    return torch.where(numbers > high, high, numbers)


def levelled(numbers: torch.Tensor, most: int) -> torch.Tensor:
    """Rounded to whole numbers from 0 to `most`.

    In the five instructions that this takes with `relu`: comparing, which `clamp` compiles to for
    the sake of NaN, takes nine.
    """
    return (most - (most - numbers).round().relu()).relu()


def fp16(numbers: torch.Tensor) -> torch.Tensor:
    """Rounded to what fp16 can hold, no farther than its largest number."""
    import torch

    return settled(numbers.clamp(-65504, 65504).to(torch.float16).to(torch.float32))


def shrinkage(x: torch.Tensor, w: torch.Tensor | None, decoded: torch.Tensor) -> torch.Tensor:
    """What `decoded` has to be multiplied by, (groups, 1, LANES), so that its component along `x`
    is as long as `x`. Least squares leaves it shorter, by the square of the relative error."""
    import torch

    wx = x if w is None else x * w
    own, common = (wx * x).sum((1, 2)), (wx * decoded).sum((1, 2))
    return settled(torch.where(common > 0, own / common, 1)).unsqueeze(1)


def column(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    """Values of candidates, to combine with (groups, subs, 1, LANES)."""
    import torch

    return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, 1, -1, 1)
