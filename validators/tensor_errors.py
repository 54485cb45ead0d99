"""The errors of one decoded tensor: sums over stretches of 256 weights, and what follows.

With the source s, what was decoded d and the difference e = d - s, three sums say it all: of e², of
s² and of e·s. They are taken over each stretch of 256 neighbouring weights of one row, because what
befalls one block drowns in the mean of its tensor, and in that of a row of thousands, too. Sums
over a stretch are in fp32, everything from there on in fp64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxconv.validators.results import StretchError, TensorError

if TYPE_CHECKING:
    import torch

#: Weights in a stretch: several blocks of every format, so that one outlier does not rule it.
STRETCH = 256
#: Errors of rounding are hardly aligned with the weights; those of a wrong scale are, wholly: there
#: the slant of a stretch is its error. Up to 0.63 has been seen in 4 bits and less, and in float8,
#: where one weight may rule a stretch, any number up to 1.
ASTRAY = 0.8


@dataclass(frozen=True)
class Sums:
    """Of some rows of a tensor: e², s² and e·s, each (rows, stretches of a row), and max |e|."""

    error: torch.Tensor
    norm: torch.Tensor
    cross: torch.Tensor
    largest: float


@dataclass(frozen=True)
class Stretch:
    """Where a stretch is, its error, and how far its gain is from 1 ("slant").

    Both relative to its own size, or to that of average weights of the tensor if that is larger.
    """

    row: int
    column: int
    relative: float
    slant: float


@dataclass(frozen=True)
class Measured:
    """One quantized tensor. `noise` is the standard error of its gain, and `odd` the stretch with
    the most slant among those that slant by more than `ASTRAY` times their error."""

    error: TensorError
    noise: float
    error_sum: float
    source_sum: float
    worst: Stretch | None = None
    odd: Stretch | None = None

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.error_sum)

    @property
    def worst_stretch(self) -> StretchError | None:
        """The worst stretch, as the report has it."""
        if self.worst is None:
            return None
        where = {"row": self.worst.row, "column": self.worst.column}
        return StretchError(name=self.error.name, relative_rms=self.worst.relative, **where)


def sums_of(decoded: torch.Tensor, source: torch.Tensor) -> Sums:
    """The sums of some rows, float tensors (rows, columns) of equal shape.

    A chunk of some million weights stays in the processor's cache.
    """
    import torch

    values = source.to(torch.float32)
    difference = torch.sub(decoded, values)  # in fp32, whatever `decoded` is
    least, most = torch.aminmax(difference)
    rows, columns = values.shape
    if short := -columns % STRETCH:
        values, difference = (
            torch.nn.functional.pad(each, (0, short)) for each in (values, difference)
        )
    values, difference = (
        each.view(rows, (columns + short) // STRETCH, STRETCH) for each in (values, difference)
    )
    return Sums(
        torch.linalg.vector_norm(difference, dim=2).square_(),
        torch.linalg.vector_norm(values, dim=2).square_(),
        torch.linalg.vecdot(difference, values),
        max(-float(least), float(most)),
    )


class TensorSums:
    """The sums of one tensor, as its rows come in."""

    def __init__(self, name: str, stored_type: str, shape: tuple[int, ...]) -> None:
        import torch

        self._name, self._type = name, stored_type
        # A quantized bias is one row.
        self.rows, self.columns = shape if len(shape) == 2 else (1, math.prod(shape))
        width = -(-self.columns // STRETCH)
        self._sums = torch.zeros(3, self.rows, width)
        self._largest = 0.0

    def add(self, row: int, sums: Sums) -> None:
        """Put in the sums of the rows from `row` on."""
        stop = row + len(sums.error)
        for place, values in zip(self._sums, (sums.error, sums.norm, sums.cross), strict=True):
            place[row:stop] = values
        self._largest = max(self._largest, sums.largest)

    def measured(self) -> Measured:
        """What follows from the sums of all rows."""
        import torch

        error, norm, cross = self._sums.double()
        total, source, shared = (float(each.sum()) for each in (error, norm, cross))
        count = self.rows * self.columns
        rms = relative(total, source)
        gain = 1 + shared / source if source else 1.0
        decoded = source + 2 * shared + total
        found = TensorError(
            name=self._name,
            type=self._type,
            weights=count,
            relative_rms=rms,
            snr=-20 * math.log10(rms) if rms > 0 else None,
            largest=self._largest,
            cosine=(source + shared) / math.sqrt(source * decoded)
            if source and decoded > 0
            else float(total == 0),
            gain=gain,
        )
        if not math.isfinite(total) or source == 0:
            return Measured(found, 0.0, total, source)
        # The gain is a ratio of two sums over stretches; this is the standard error of a ratio
        # estimate (Cochran, "Sampling Techniques"), no less than what independent errors give.
        number = error.numel()
        residual = float((cross - (gain - 1) * norm).square().sum())
        spread = math.sqrt(residual * number / max(1, number - 1)) / source
        noise = max(spread, rms * math.sqrt(3 / count))

        # Small weights may share a scale with large ones, hence the floor of an average stretch;
        # where a scale is lost, the error stays near 1.
        lengths = torch.full((norm.shape[1],), float(STRETCH), dtype=torch.float64)
        lengths[-1] -= -self.columns % STRETCH
        floor = norm.clamp(min=source / count * lengths)
        errors, slants = (error / floor).sqrt(), cross / floor
        # Of a part of a stretch the gain says little: few weights share the errors.
        whole = (slants[:, : self.columns // STRETCH], errors[:, : self.columns // STRETCH])
        astray = torch.where(whole[0].abs() > ASTRAY * whole[1], whole[0].abs(), 0.0)
        odd = None
        if astray.numel() and float(astray.max()) > 0:
            odd = self._stretch(divmod(int(astray.argmax()), astray.shape[1]), errors, slants)
        worst = self._stretch(divmod(int(errors.argmax()), errors.shape[1]), errors, slants)
        return Measured(found, noise, total, source, worst, odd)

    def _stretch(self, at: tuple[int, int], errors: torch.Tensor, slants: torch.Tensor) -> Stretch:
        return Stretch(at[0], at[1] * STRETCH, float(errors[at]), float(slants[at]))


def relative(error: float, norm: float) -> float:
    """The relative RMS of two sums of squares; 1 for any error of weights that are all zero."""
    if norm == 0:
        return 0.0 if error == 0 else 1.0
    return math.sqrt(error / norm)
