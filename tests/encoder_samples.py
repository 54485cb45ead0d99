"""Weights that the encoders are judged on, fp32, and the measure: relative root mean square error.

The generators are numpy's, whose streams may change with its version; `fingerprint` tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weights = NDArray[np.float32]

TINY_FLUX = Path(__file__).parent / "checkpoints" / "tiny-flux"
COLUMNS = 4096
#: The largest magnitudes of fp32 and of bf16.
FP32_MAX, BF16_MAX = 2.0**128 - 2.0**104, 2.0**128 - 2.0**120


# Weights as they occur ---------------------------------------------------------------------------


def normal(rows: int) -> Weights:
    return _fp32(0.02 * np.random.default_rng(0).standard_normal((rows, COLUMNS)))


def student(rows: int) -> Weights:
    """Student-t of 6 degrees of freedom: tails as trained weights have them."""
    return _fp32(0.02 * np.random.default_rng(1).standard_t(6, (rows, COLUMNS)))


def outliers(rows: int) -> Weights:
    """Normal; one weight in 1,000 is 20 times larger."""
    weights = normal(rows)
    weights[np.random.default_rng(2).random(weights.shape) < 1e-3] *= 20
    return weights


SAMPLES: dict[str, Callable[[int], Weights]] = {
    "normal": normal,
    "Student-t": student,
    "outliers": outliers,
}


def tiny_flux() -> list[Weights]:
    """The trained weights of the tiny Flux whose rows are whole super-blocks of 256, one matrix
    for each length of a row: 8.7 million weights of its transformer and T5."""
    from safetensors.torch import load_file

    by_columns: dict[int, list[Weights]] = {}
    for component in ("transformer", "text_encoder_2"):
        for file in (TINY_FLUX / component).glob("*.safetensors"):
            for _, tensor in sorted(load_file(file).items()):
                if tensor.ndim == 2 and tensor.shape[1] % 256 == 0:
                    by_columns.setdefault(tensor.shape[1], []).append(tensor.float().numpy())
    return [np.concatenate(parts) for parts in by_columns.values()]


def importance(columns: int = COLUMNS) -> Weights:
    """Mean squares of input channels: most alike, a few a hundred times as large."""
    return _fp32(np.exp(1.5 * np.random.default_rng(3).standard_normal(columns)))


# Weights that break encoders ---------------------------------------------------------------------


def nasty() -> dict[str, Weights]:
    """Rows of 256, by what is wrong with them."""
    random = np.random.default_rng(4)

    def noise(scale: float, rows: int = 64) -> Weights:
        # In two steps, because a scale of denormals is zero in fp32.
        root = np.sqrt(scale)
        return _fp32(_fp32(random.standard_normal((rows, 256)) * root) * root)

    def one_weight(value: float, rest: Weights) -> Weights:
        rest[:, 37] = value
        return rest

    signs = np.tile(_fp32(np.array([1.0, -1.0])), 128)
    return {
        "zeros": np.zeros((2, 256), np.float32),
        "negative zeros": np.full((2, 256), -0.0, np.float32),
        "one value": np.full((2, 256), 0.37, np.float32),
        "one negative value": np.full((2, 256), -0.37, np.float32),
        "all positive": np.abs(noise(1)) + 1,
        "all negative": -np.abs(noise(1)) - 1,
        "far from zero": noise(0.01) + 10,
        "alternating signs": np.tile(signs * _fp32(0.1), (2, 1)),
        "alternating signs of noise": np.abs(noise(0.01)) * signs,
        "outlier among noise": one_weight(50, noise(0.01)),
        "negative outlier among noise": one_weight(-50, noise(0.01)),
        "outlier among zeros": one_weight(0.5, np.zeros((2, 256), np.float32)),
        "normal among tiny": one_weight(0.5, noise(1e-7)),
        "normal among denormals": one_weight(0.5, noise(1e-40)),
        "huge among normal": one_weight(1e30, noise(0.02)),
        "largest among denormals": one_weight(FP32_MAX, noise(1e-40)),
        "a block of noise among zeros": np.pad(noise(0.02)[:, :32], ((0, 0), (96, 128))),
        "blocks of all magnitudes": noise(1) * np.repeat(_fp32(10.0 ** np.arange(-6, 2)), 32),
        **{f"scale 1e{power}": noise(10.0**power) for power in (*range(-9, -3), -20, -40, -44)},
        **{f"scale 1e{power}": noise(10.0**power) for power in (*range(3, 9), 10, 18, 20, 37)},
        "largest bf16": np.sign(noise(1)) * _fp32(BF16_MAX),
        "largest fp32": np.sign(noise(1)) * _fp32(FP32_MAX),
        "up to the largest fp32": _fp32(random.uniform(-FP32_MAX, FP32_MAX, (64, 256))),
        "largest fp32, positive": np.full((2, 256), FP32_MAX, np.float32),
    }


def kinds() -> dict[str, Weights]:
    """Everything that the tests encode: normal weights and their like, then the nasty ones."""
    return {name: make(64) for name, make in SAMPLES.items()} | nasty()


# Measures ----------------------------------------------------------------------------------------


def relative_error(
    pairs: Iterable[tuple[Weights, Weights]], importance: Weights | None = None
) -> float:
    """Root of the squared errors of all (weights, decoded) pairs over the squares of the weights,
    each square times its channel's importance. For zeros it is the error itself. NaN and infinity
    stay what they are."""
    error = total = 0.0
    for weights, decoded in pairs:
        scale = 1.0 if importance is None else importance.astype(np.float64)
        exact = weights.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            error += float((scale * (exact - decoded) ** 2).sum())
        total += float((scale * exact**2).sum())
    return float((error / (total or 1.0)) ** 0.5)


def fingerprint(weights: Weights) -> str:
    return hashlib.sha256(np.ascontiguousarray(weights).tobytes()).hexdigest()[:16]


def _fp32(values: ArrayLike) -> Weights:
    return np.asarray(values, np.float32)
