"""The weights layer beside decoding alone and reading alone: ratios of one run.

    python benchmarks/weights_layer.py [--double 1] [--single 1] [--repeat 3] [--folder FOLDER]

On a slice of synthetic weights at real width, from the page cache. "Reading" is every byte of the
source and of the variant once, "decoding" is `decode_component`: the variant read and decoded,
tensor by tensor, on as many threads as torch takes. Each measurement is the least of a few, taken
in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
from streaming import folder_option, synthetic, working_folder

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.progress import Silent
from fluxconv.converters.stored import decode_component
from fluxconv.validators.weights import compare_weights

BACKENDS = ("gguf-q4_k_m", "gguf-q8_0", "bnb-nf4", "torchao-int8")
_CHUNK = 1 << 22


@click.command(help=__doc__)
@click.option("--double", default=1, show_default=True)
@click.option("--single", default=1, show_default=True)
@click.option("--repeat", default=3, show_default=True)
@click.option("--backend", "chosen", multiple=True, default=BACKENDS, show_default=True)
@folder_option
def main(
    double: int, single: int, repeat: int, chosen: tuple[str, ...], folder: Path | None
) -> None:
    with working_folder(folder) as work:
        words = ["--double", str(double), "--single", str(single)]
        place = synthetic(work / "slice", *words) / "transformer"
        source = open_checkpoint(place)
        click.echo("| variant | reading | decoding | weights layer | beside decoding |")
        click.echo("|---|---|---|---|---|")
        for backend in chosen:
            (variant,) = quantize(source, [backend], work / backend, device="cpu")
            reading, decoding, layer = measured(variant, source, repeat)
            click.echo(
                f"| `{backend}` | {reading:.2f} s | {decoding:.2f} s | {layer:.2f} s "
                f"| {layer / decoding:.2f} |"
            )


def measured(variant: Variant, source: Checkpoint, repeat: int) -> tuple[float, ...]:
    """Seconds that reading, decoding and the layer take at least."""

    def read() -> None:
        memory = bytearray(_CHUNK)
        for root in (variant.root, source.root):
            for file in root.rglob("*.*"):
                if file.suffix in (".safetensors", ".gguf"):
                    with file.open("rb", buffering=0) as stream:
                        while stream.readinto(memory):
                            pass

    def decode() -> None:
        for plan in variant.component_plans().values():
            for _ in decode_component(variant.root, plan):
                pass

    jobs: tuple[Callable[[], object], ...] = (
        read,
        decode,
        lambda: compare_weights(variant.root, source, Silent()),
    )
    least = [float("inf")] * len(jobs)
    for turn in range(repeat + 1):  # the first fills the cache and imports the libraries
        for number, job in enumerate(jobs):
            start = time.perf_counter()
            job()
            if turn:
                least[number] = min(least[number], time.perf_counter() - start)
    return tuple(least)


if __name__ == "__main__":
    main()
