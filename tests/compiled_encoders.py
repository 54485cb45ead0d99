"""Encode in a process of its own, and say what came of it: `compiled_encoders.py TYPE...`.

Prints JSON: whether torch's compiler was imported, and for each type and level the error on normal
weights, and whether pieces of rows and two threads gave the same bytes.
"""

from __future__ import annotations

import json
import sys

import click
import torch
from encoder_judge import LEVELS, error
from encoder_samples import normal

from fluxconv.converters.gguf import encode


def main(type_names: list[str]) -> None:
    weights = normal(48)
    weight = torch.from_numpy(weights)
    found = {}
    for name in type_names:
        for level in LEVELS:
            torch.set_num_threads(1)
            whole = encode(weight, name, effort=level)
            pieces = torch.cat([encode(rows, name, effort=level) for rows in weight.split(5)])
            torch.set_num_threads(2)
            threads = encode(weight, name, effort=level)
            found[f"{name} {level}"] = {
                "error": error(weights, name, level),
                "pieces": torch.equal(whole, pieces),
                "threads": torch.equal(whole, threads),
            }
    imported = "torch._inductor.compile_fx" in sys.modules
    click.echo(json.dumps({"compiler": imported, "encoders": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
