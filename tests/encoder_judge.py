"""What both tests of the GGUF encoders share: gguf-py's decoder, and the errors of ggml's encoders.

Those are data, `gguf_c_errors.jsonl`, made by `python benchmarks/gguf_c_errors.py`, so that no C
library is needed here.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from encoder_promises import PROMISES
from encoder_samples import Weights, fingerprint, kinds, relative_error

from fluxconv.converters.gguf import encode
from fluxconv.converters.gguf.encoding import Effort

C_ERRORS = Path(__file__).with_name("gguf_c_errors.jsonl")
LEVELS: tuple[Effort, ...] = ("fast", "best")

every_type = pytest.mark.parametrize("type_name", PROMISES)
every_level = pytest.mark.parametrize("level", LEVELS)


@cache
def samples() -> dict[str, Weights]:
    """Every kind of weights, made once. Read-only."""
    return kinds()


@cache
def c_errors(kind: str) -> dict[str, tuple[float, float]]:
    """By type, of C's plain path and of its better one. Where C writes NaN or infinity it is 1, the
    error of zeros."""
    line = next(line for line in _committed() if line["weights"] == kind)
    made = fingerprint(samples()[kind.removesuffix(", weighted")])
    assert made == line["fingerprint"], f"{kind}: run python benchmarks/gguf_c_errors.py again"
    return {
        name: (_or_one(plain), min(_or_one(plain), _or_one(searching)))
        for name, (plain, searching) in line["errors"].items()
    }


@cache
def _committed() -> list[dict[str, Any]]:
    return [json.loads(line) for line in C_ERRORS.read_text().splitlines()]


def _or_one(error: float | None) -> float:
    return 1.0 if error is None else error


def encoded(weights: Weights, type_name: str, level: Effort, **options: Any) -> torch.Tensor:
    return encode(torch.from_numpy(weights), type_name, effort=level, **options)


def decoded(blocks: torch.Tensor, type_name: str) -> Weights:
    """By gguf-py, which makes infinity and NaN of scales that fp16 cannot hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        kind = gguf.GGMLQuantizationType[type_name]
        found: Weights = gguf.quants.dequantize(blocks.numpy(), kind)
    return found


def error(
    weights: Weights, type_name: str, level: Effort, judged: Weights | None = None, **options: Any
) -> float:
    """Of encoding and decoding, each channel weighing as in `judged`."""
    back = decoded(encoded(weights, type_name, level, **options), type_name)
    return relative_error([(weights, back)], judged)


@cache
def sample_errors(type_name: str, level: Effort) -> dict[str, float]:
    """By kind of weights. All that have rows of the same length are encoded at once: blocks know
    nothing of one another."""
    found = {}
    for columns in {weights.shape[1] for weights in samples().values()}:
        some = {name: each for name, each in samples().items() if each.shape[1] == columns}
        together = np.concatenate(list(some.values()))
        back = decoded(encoded(together, type_name, level), type_name)
        ends = np.cumsum([len(each) for each in some.values()])
        for (name, each), part in zip(some.items(), np.split(back, ends[:-1]), strict=True):
            found[name] = relative_error([(each, part)])
    return found
