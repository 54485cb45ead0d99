"""GGUF encoders: error no worse than that of ggml's own, whatever the weights, and importance that
tells. All without a compiler; `test_gguf_compiled.py` has those with one, and speed is measured by
`python benchmarks/gguf_encoders.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from encoder_judge import (
    LEVELS,
    c_errors,
    decoded,
    encoded,
    error,
    every_level,
    every_type,
    sample_errors,
    samples,
)
from encoder_promises import PROMISES, TIGHT
from encoder_samples import SAMPLES, importance, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxconv.converters.gguf import encode
from fluxconv.converters.gguf.encoding import Effort

# What rounding a block's fp16 scale can cost, whatever was searched: half a unit in its last place.
ROUNDED_SCALE = 2**-11


@pytest.fixture(scope="module", autouse=True)
def eager() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUXCONV_COMPILE", "0")
        yield


@every_type
@pytest.mark.parametrize("kind", TIGHT)
def test_best_keeps_its_promise(kind: str, type_name: str) -> None:
    _, better = c_errors(kind)[type_name]
    ratio = sample_errors(type_name, "best")[kind] / better
    assert round(ratio, 4) <= PROMISES[type_name].error


@every_type
@every_level
def test_no_worse_than_c_whatever_the_weights(level: Effort, type_name: str) -> None:
    """`fast` than C's plain path, `best` than its better one; and never NaN or infinity."""
    worse = []
    for kind, ours in sample_errors(type_name, level).items():
        bound = c_errors(kind)[type_name][LEVELS.index(level)]
        if not ours <= max(bound * (1 + 1e-5), ROUNDED_SCALE):
            worse.append(f"{kind}: {ours:.6g}, C {bound:.6g}")
    assert not worse, "\n".join(worse)


@every_type
@pytest.mark.parametrize("kind", SAMPLES)
def test_best_is_no_worse_than_fast(kind: str, type_name: str) -> None:
    assert sample_errors(type_name, "best")[kind] <= sample_errors(type_name, "fast")[kind]


@every_type
@every_level
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_bits_decode_to_finite_weights(level: Effort, type_name: str, seed: int) -> None:
    """Every pattern of bf16's bits but infinity and NaN: all magnitudes in one block."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**15), 2**15, (32, 256), generator=generator).to(torch.int16)
    weight = bits.view(torch.bfloat16).nan_to_num(0, 0, 0)
    assert np.isfinite(decoded(encode(weight, type_name, effort=level), type_name)).all()


# Importance --------------------------------------------------------------------------------------


def _lowers(with_it: float, without: float, type_name: str) -> bool:
    # A block of Q8_0 has its scale from its largest weight, whatever the others are.
    return with_it == without if type_name == "Q8_0" else with_it < without


@every_type
@every_level
def test_importance_lowers_the_weighted_error(level: Effort, type_name: str) -> None:
    weights, channels = samples()["normal"][:16], importance()
    without = error(weights, type_name, level, channels)
    with_it = error(weights, type_name, level, channels, importance=torch.from_numpy(channels))
    assert _lowers(with_it, without, type_name)


@every_type
def test_best_uses_importance_no_worse_than_c(type_name: str) -> None:
    weights, channels = samples()["normal"], importance()
    ours = error(weights, type_name, "best", channels, importance=torch.from_numpy(channels))
    assert ours <= c_errors("normal, weighted")[type_name][1] * (1 + 1e-5)


@every_type
@every_level
def test_importance_that_says_nothing_costs_nothing(level: Effort, type_name: str) -> None:
    """All channels alike; none that matters at all, as where a layer never ran."""
    weights = samples()["Student-t"][:16]
    without = error(weights, type_name, level)
    for value in (1.0, 1e-30, 1e30, 0.0):
        given = torch.full((weights.shape[1],), value)
        assert error(weights, type_name, level, importance=given) <= 1.001 * without, value


@every_type
@every_level
def test_channels_of_no_importance_are_left_to_the_others(level: Effort, type_name: str) -> None:
    weights, channels = samples()["normal"][:16], importance()
    channels[::3] = 0
    channels[:256] = 0  # a whole block of every type
    given = torch.from_numpy(channels)
    back = decoded(encoded(weights, type_name, level, importance=given), type_name)
    # A channel that was silent for the prompts at hand need not be silent for ever.
    assert relative_error([(weights, back)]) < 1
    with_it = relative_error([(weights, back)], channels)
    without = error(weights, type_name, level, channels)
    assert _lowers(with_it, without, type_name)


@every_type
@every_level
def test_unbiased_blocks_are_as_long_as_their_weights(level: Effort, type_name: str) -> None:
    """Along the weights; least error leaves them shorter by the error's square. Q8_0 is rounded."""

    def length(**options: bool) -> float:
        back = decoded(encoded(weights, type_name, level, **options), type_name)
        return float((weights * back).sum(dtype=np.float64) / (weights**2).sum(dtype=np.float64))

    weights = samples()["normal"][:64]
    shrunk = error(weights, type_name, "best") ** 2
    assert abs(length(unbiased=True) - 1) < 5e-4  # Q6_K: a `d` that fp16 has few digits for
    if type_name != "Q8_0":
        assert length() < 1 - shrunk / 2 or level == "fast"
        assert error(weights, type_name, level, unbiased=True) < 1.04 * shrunk**0.5 + 1e-5
