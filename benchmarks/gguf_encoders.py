"""Our GGUF encoders against ggml's own: error and speed of every type, and what was promised.

    python benchmarks/gguf_encoders.py [--type Q4_K ...] [--json FILE] [--cold]

Error is the relative root mean square after decoding with gguf-py; speed is that of one thread on
normal fp32 weights, ours and C's in turn, the best of many rounds. C's plain path has no
importance, the searching one has all ones; its better path is the one with the smaller error on the
same weights. The first call of an encoder, with compilation, is timed by itself. Prints the tables
of `docs/gguf.md`, then every promise that was missed, and exits with 1 if there is one.

The trained weights are those of the tiny Flux whose rows are whole super-blocks of 256.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from building import ggml_base
from gguf import GGMLQuantizationType, quants
from gguf_tables import missed, tables
from numpy.typing import NDArray
from reference import Reference

from fluxconv.converters.gguf import encode
from fluxconv.converters.gguf.encoding import Effort
from fluxconv.converters.gguf.types import TYPES

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from encoder_promises import PROMISES
from encoder_samples import COLUMNS, SAMPLES, Weights, normal, relative_error, tiny_flux

LEVELS: tuple[Effort, ...] = ("fast", "best")
TURN = 0.3  # seconds; a single call of the quickest ones tells little
DATA = (*SAMPLES, "tiny Flux")
Encoder = Callable[[Weights], NDArray[np.uint8]]


@dataclass(frozen=True)
class Measured:
    """One type. `errors` by kind of weights, then by encoder; `speeds` in million weights a second
    and `first_calls` in seconds by encoder."""

    type_name: str
    bits: float
    errors: dict[str, dict[str, float]]
    speeds: dict[str, float]
    first_calls: dict[str, float]


@click.command(help=__doc__)
@click.option("--type", "types", type=click.Choice(list(PROMISES)), multiple=True, help="[all]")
@click.option("--effort", "levels", type=click.Choice(LEVELS), multiple=True, default=LEVELS)
@click.option("--data", "kinds", type=click.Choice(DATA), multiple=True, default=DATA)
@click.option("--weights", default=1 << 24, show_default=True, help="Weights encoded for speed.")
@click.option("--seconds", default=4.0, show_default=True, help="Least time for a type's speeds.")
@click.option("--library", type=click.Path(path_type=Path), help="libggml-base [built if need be].")
@click.option("--json", "record", type=click.Path(path_type=Path), help="Keep the figures here.")
@click.option("--cold", is_flag=True, help="Compile anew, whatever was compiled before.")
def main(
    types: tuple[str, ...],
    levels: tuple[Effort, ...],
    kinds: tuple[str, ...],
    weights: int,
    seconds: float,
    library: Path | None,
    record: Path | None,
    cold: bool,
) -> None:
    reference = Reference(library or ggml_base())
    samples = {name: [make(256)] for name, make in SAMPLES.items()} | {"tiny Flux": tiny_flux()}
    long = normal(max(1, weights // COLUMNS))
    found = []
    with ExitStack() as stack:
        if cold:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        for type_name in types or PROMISES:
            click.echo(f"{type_name} ...", err=True)
            speeds, first_calls = measure_speeds(type_name, levels, reference, long, seconds)
            errors = {
                kind: measure_errors(type_name, levels, reference, samples[kind]) for kind in kinds
            }
            bits = TYPES[type_name].bits
            found.append(Measured(type_name, bits, errors, speeds, first_calls))
    figures = [asdict(each) for each in found]
    if record:
        record.write_text(json.dumps(figures, indent=1) + "\n")
    click.echo(tables(figures))
    failures = missed(figures)
    for failure in failures:
        click.echo(f"MISSED {failure}")
    sys.exit(1 if failures else 0)


def measure_errors(
    type_name: str, levels: tuple[Effort, ...], reference: Reference, weights: list[Weights]
) -> dict[str, float]:
    """The relative error of every encoder over all of `weights`."""

    def error(encoder: Encoder) -> float:
        kind = GGMLQuantizationType[type_name]
        return relative_error((each, quants.dequantize(encoder(each), kind)) for each in weights)

    torch.set_num_threads(1)
    return {
        label: error(encoder) for label, encoder in _encoders(type_name, levels, reference).items()
    }


def measure_speeds(
    type_name: str,
    levels: tuple[Effort, ...],
    reference: Reference,
    weights: Weights,
    seconds: float,
) -> tuple[dict[str, float], dict[str, float]]:
    """Million weights a second of every encoder and, of ours, with two threads; then the seconds of
    our first calls. All take turns, so that whatever else the machine does hits all of them."""
    encoders = _encoders(type_name, levels, reference)
    contestants = {label: (1, encoder) for label, encoder in encoders.items()}
    contestants |= {f"{level}, two threads": (2, encoders[level]) for level in levels}
    first = {str(level): _time(1, encoders[level], weights) for level in levels}
    for each in contestants.values():
        _time(*each, weights)
    best = dict.fromkeys(contestants, float("inf"))
    rounds, began = 0, time.perf_counter()
    while rounds < 3 or time.perf_counter() - began < seconds:
        rounds += 1
        for label, each in contestants.items():
            best[label] = min(best[label], _time(*each, weights, TURN))
    return {label: weights.size / took / 1e6 for label, took in best.items()}, first


def _encoders(
    type_name: str, levels: tuple[Effort, ...], reference: Reference
) -> dict[str, Encoder]:
    return {
        "C plain": partial(reference.encode, type_name=type_name),
        "C searching": partial(reference.searching, type_name=type_name),
        **{level: partial(_ours, type_name=type_name, level=level) for level in levels},
    }


def _ours(weights: Weights, type_name: str, level: Effort) -> NDArray[np.uint8]:
    encoded: NDArray[np.uint8] = encode(torch.from_numpy(weights), type_name, effort=level).numpy()
    return encoded


def _time(threads: int, encoder: Encoder, weights: Weights, at_least: float = 0) -> float:
    """Seconds that encoding takes, the best of as many times as fit in `at_least` seconds."""
    torch.set_num_threads(threads)
    best, started = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - started < at_least:
        began = time.perf_counter()
        encoder(weights)
        best = min(best, time.perf_counter() - began)
    return best


if __name__ == "__main__":
    main()
