"""The errors of ggml's own encoders on the tests' weights, which hold our encoders to them.

    python benchmarks/gguf_c_errors.py [--library FILE]

writes `tests/gguf_c_errors.jsonl`, so that the tests need no C library. A line has one kind of
weights: their fingerprint, and for each type the relative error of C's plain path and of the one
with importance of all ones, null where that is NaN or infinite. The second line has normal weights
again, with `encoder_samples.importance` in the measure and given to C's second path.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import click
import numpy as np
from building import ggml_base
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray
from reference import Reference

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from encoder_promises import PROMISES
from encoder_samples import fingerprint, importance, kinds, relative_error

FILE = Path(__file__).parent.parent / "tests" / "gguf_c_errors.jsonl"


@click.command(help=__doc__)
@click.option("--library", type=click.Path(path_type=Path), help="libggml-base [built if need be].")
def main(library: Path | None) -> None:
    reference = Reference(library or ggml_base())
    with FILE.open("w") as file:
        for name, weights in kinds().items():
            ones = np.ones(weights.shape[1], np.float32)
            file.write(_line(reference, name, weights, ones))
            if name == "normal":
                file.write(_line(reference, "normal, weighted", weights, importance()))
    click.echo(f"Wrote {FILE.name}")


def _line(
    reference: Reference, name: str, weights: NDArray[np.float32], importance: NDArray[np.float32]
) -> str:
    errors: dict[str, list[float | None]] = {}
    for type_name in PROMISES:
        errors[type_name] = []
        for given in (None, importance):
            encoded = reference.encode(weights, type_name, given)
            with np.errstate(over="ignore", invalid="ignore"):
                decoded = quants.dequantize(encoded, GGMLQuantizationType[type_name])
            error = relative_error([(weights, decoded)], importance)
            errors[type_name].append(float(f"{error:.6g}") if math.isfinite(error) else None)
    found = {"weights": name, "fingerprint": fingerprint(weights), "errors": errors}
    return json.dumps(found) + "\n"


if __name__ == "__main__":
    main()
