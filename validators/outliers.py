"""Which tensors err as no rounding does: a wrong scale, rows or tensors in each other's place.

How long is what was decoded along its source (its gain)? The best rounding to few values falls
short of 1 by the square of its error, since every value is the mean of what is rounded to it; plain
rounding by less, and either by about the same for all tensors of a type. How large is the error,
beside what the type gives and beside the other tensors of that type? And the same two questions for
the worst stretch of the tensor.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fluxconv.validators.tensor_errors import STRETCH, Measured


@dataclass(frozen=True)
class Expected:
    """What a type gives: the relative RMS error of a tensor and of a stretch, at most.

    `step` is how far from 1 the gain of a stretch may be whatever its error, as one large weight
    may rule it; `spread` is how many times the median of its type a tensor's error may be. `less`
    and `more` are what rounding takes off a gain of 1 and adds to it, in squares of the error,
    `among` is how far that may be from the median of its type.
    """

    tensor: float
    stretch: float
    step: float = 0.01
    spread: float = 4.0
    less: float = 1.2
    more: float = 0.15
    among: float = 0.5
    gain: float = 0.002


#: By type: 1.5 times or more what was measured on the tiny Flux and on weights with heavy tails,
#: with outliers, and with outlying rows and columns (`docs/validation.md`). Where a row shares one
#: scale with an outlier, or float8 has no scale, errors of tensors differ more. At four levels from
#: the least to the greatest weight, rounding can add to the gain.
EXPECTED: Mapping[str, Expected] = {
    "F32": Expected(0.0001, 0.0001),
    "F16": Expected(0.001, 0.002),
    "BF16": Expected(0.003, 0.005),
    "Q8_0": Expected(0.02, 0.03),
    "Q6_K": Expected(0.045, 0.07),
    "Q5_K": Expected(0.07, 0.11),
    "Q5_1": Expected(0.07, 0.11),
    "Q5_0": Expected(0.12, 0.17),
    "Q4_K": Expected(0.14, 0.2),
    "Q4_1": Expected(0.14, 0.2),
    "Q4_0": Expected(0.22, 0.32),
    "IQ4_NL": Expected(0.17, 0.24),
    "IQ4_XS": Expected(0.17, 0.24),
    "Q3_K": Expected(0.28, 0.4),
    "Q2_K": Expected(0.45, 0.55),
    "F8_E4M3": Expected(0.1, 0.25, step=0.07, spread=10),
    "F8_E5M2": Expected(0.1, 0.25, step=0.13, spread=10),
    "torchao-fp8": Expected(0.06, 0.09, step=0.07),
    "quanto-fp8": Expected(0.06, 0.09, step=0.07),
    "torchao-int8": Expected(0.1, 0.25, step=0.03, spread=16),
    "quanto-int8": Expected(0.1, 0.25, step=0.03, spread=16),
    "bnb-int8": Expected(0.1, 0.25, step=0.03, spread=16),
    "bnb-nf4": Expected(0.22, 0.32, step=0.08),
    "bnb-fp4": Expected(0.36, 0.48, step=0.14),
    "quanto-int4": Expected(0.28, 0.5, step=0.05),
    "quanto-int2": Expected(0.75, 1.3, step=0.4, gain=0.07),
}
_UNKNOWN = Expected(1.0, 1.0, step=0.13)

_NOISE = 6.0  # standard errors: one false alarm in some hundred million tensors
_FEW = 5  # tensors of a type, from which on they are compared with one another
_NO_ERROR = 0.005  # below, errors of tensors may differ by any factor
_LOST = 1.2  # the error of a stretch that is worse than none


def outliers(tensors: Sequence[Measured], *, weighted: bool = False) -> list[str]:
    """A sentence for each tensor whose error is not of the kind that its type gives.

    `weighted` says that some inputs were spared error at the cost of others (importance).
    """
    by_type = defaultdict(list)
    for tensor in tensors:
        by_type[tensor.error.type].append(tensor)
    found = []
    for tensor in tensors:
        limits = limits_of(tensor, by_type[tensor.error.type], weighted=weighted)
        fault = next(_faults(tensor, limits), None)
        if fault:
            found.append(f"'{tensor.error.name}' {fault}")
    return found


@dataclass(frozen=True)
class TensorLimits:
    """What is held against one tensor: the least and the greatest gain, and the largest errors of
    the tensor and of its stretches; `step` as in `Expected`."""

    gain: tuple[float, float]
    error: float
    stretch: float
    step: float


def limits_of(
    tensor: Measured, alike: Sequence[Measured], *, weighted: bool = False
) -> TensorLimits:
    """The limits of one tensor; `alike` are all those of its type."""
    expected = EXPECTED.get(tensor.error.type, _UNKNOWN)
    if weighted:
        expected = _weighted(expected)
    square = min(tensor.error.relative_rms, expected.tensor) ** 2
    margin = expected.gain + _NOISE * tensor.noise
    low, high = 1 - expected.less * square - margin, 1 + expected.more * square + margin
    error = expected.tensor
    if len(alike) >= _FEW:
        usual = statistics.median(_shortfall(each) for each in alike)
        low = max(low, 1 - (usual + expected.among) * square - margin)
        high = min(high, 1 - (usual - expected.among) * square + margin)
        median = statistics.median(each.error.relative_rms for each in alike)
        error = min(error, max(_NO_ERROR, expected.spread * median))
    return TensorLimits((low, high), error, expected.stretch, expected.step)


def _faults(tensor: Measured, limits: TensorLimits) -> Iterator[str]:
    found, (low, high) = tensor.error, limits.gain
    if not low <= found.gain <= high:
        yield (
            f"decodes to {found.gain:.3f} times its source, where {found.type} gives {low:.3f} to "
            f"{high:.3f}"
        )
    if found.relative_rms > limits.error:
        yield (
            f"has an error of {found.relative_rms:.3g}, where {found.type} gives "
            f"{limits.error:.3g} at most"
        )
    if (worst := tensor.worst) and worst.relative > limits.stretch:
        yield (
            f"has an error of {worst.relative:.3g} in the {STRETCH} weights at row {worst.row}, "
            f"column {worst.column}, where {found.type} gives {limits.stretch:.3g} at most"
        )
    if (odd := tensor.odd) and abs(odd.slant) > limits.step:
        yield (
            f"decodes to {1 + odd.slant:.3f} times its source in the {STRETCH} weights at row "
            f"{odd.row}, column {odd.column}, which rounding does not explain"
        )


def _weighted(expected: Expected) -> Expected:
    """The same where importance was heeded: inputs of none may be lost, and tensors differ in how
    their importance is spread."""
    return replace(
        expected,
        tensor=1.5 * expected.tensor,
        stretch=_LOST,
        step=_LOST,
        less=4.0,
        among=3.0,
    )


def _shortfall(tensor: Measured) -> float:
    square = tensor.error.relative_rms**2
    return (1 - tensor.error.gain) / square if square else 0.0
