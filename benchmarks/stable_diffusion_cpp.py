"""stable-diffusion.cpp, the C++ program that reads and writes GGUF files of Flux.

    python benchmarks/stable_diffusion_cpp.py loads     it opens, draws with and decodes our files
    python benchmarks/stable_diffusion_cpp.py races     its `convert` against `fluxconv quantize`

`building.py` builds it once. The weights are synthetic. `--small` is for trying the script.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from statistics import median

import click
import sd_program
from streaming import folder_option, measure, quantize, synthetic, working_folder

from fluxconv.converters.backends import all_backends

GGUF = [name for name, each in all_backends().items() if each.container == "gguf"]
#: What each of ours is raced with: its own name for the type.
RACES = {"gguf-q4_k_m": "q4_K", "gguf-q8_0": "q8_0"}
#: T5's layers of which the program says that they are not there: the slice has only the first.
LAYERS_LEFT_OUT = tuple(f"text_encoders.t5xxl.transformer.encoder.block.{i}." for i in range(1, 24))
PARTS = {"transformer": "Diffusion model", "text_encoder_2": "Conditioner"}


@click.group(help=__doc__)
def main() -> None:
    pass


small_option = click.option("--small", is_flag=True, help="Narrow weights, to try the script.")


@main.command("loads")
@click.option("--backend", "chosen", multiple=True, type=click.Choice(GGUF), help="[all]")
@small_option
@folder_option
def loads(chosen: tuple[str, ...], small: bool, folder: Path | None) -> None:
    """One block of each kind at real width, and one layer of T5, as every GGUF type.

    Holds the program's own count of types against the plan, looks for complaints, draws, and
    converts our file to F32 to compare every value with gguf-py's decoding. A picture's distance is
    from the one of the first backend, of 255.
    """
    names = list(dict.fromkeys(("gguf-bf16", *(chosen or GGUF))))
    size = ["--width", "256", "--heads", "2"] if small else []
    with working_folder(folder) as work:
        words = ["--double", "1", "--single", "1", "--t5-layers", "1", *size]
        source = synthetic(work / "slice", "--components", ",".join(PARTS), *words)
        others = sd_program.companions(work)
        click.echo(
            "| component | backend | types, as it counts them | accepts | values | picture |"
        )
        click.echo("|---|---|---|---|---|---|")
        drawing: Path | None = None
        for part in PARTS:
            for name in names:
                ours = _file(source / part, name, work / "ours")
                if part == "transformer":
                    files = {"diffusion-model": ours, **others}
                    drawing = drawing or Path(shutil.copy(ours, work / "drawing.gguf"))
                else:
                    assert drawing
                    files = {"diffusion-model": drawing, "t5xxl": ours, "taesd": others["taesd"]}
                seen = sd_program.draw(files, work / "picture.png")
                types = seen.types[PARTS[part]]
                accepted = types == _types(ours) and not _complaints(seen)
                distance = _distance(work / "picture.png", work / "first.png")
                equal = _same_values(ours, work / "converted.gguf")
                counted = ", ".join(f"{count} {kind}" for kind, count in sorted(types.items()))
                click.echo(
                    f"| {part} | `{name}` | {counted} | {'yes' if accepted else 'NO'} "
                    f"| {'equal' if equal else 'DIFFERENT'} | {distance} |"
                )
                shutil.rmtree(work / "ours")


def _file(source: Path, backend: str, output: Path) -> Path:
    """The GGUF file of one backend."""
    words = ["quantize", str(source), "--backend", backend, "-q", "-o", str(output)]
    measure([sys.executable, "-m", "fluxconv.commands", *words, "--device", "cpu"])
    (file,) = output.rglob("*.gguf")
    return file


def _complaints(seen: sd_program.Seen) -> list[str]:
    """What it misses or does not know of the two components under test."""
    ours = ("model.diffusion_model.", "text_encoders.t5xxl.")
    return [
        each
        for each in seen.complaints
        if each.startswith(ours) and not each.startswith(LAYERS_LEFT_OUT)
    ]


def _types(file: Path) -> Counter[str]:
    from fluxconv.converters.gguf.reader import read_gguf_header

    return Counter(tensor.type_name for tensor in read_gguf_header(file).tensors)


def _distance(picture: Path, first: Path) -> str:
    """Root mean square difference of two pictures; the first one is kept."""
    import numpy as np
    from PIL import Image

    if not picture.exists():
        return "not drawn: T5 is not whole" if first.exists() else "NOT DRAWN"
    if not first.exists():
        picture.rename(first)
        return "0.0, the first"
    with Image.open(picture) as ours, Image.open(first) as other:
        difference = np.asarray(ours, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return f"{float(np.sqrt(np.mean(difference**2))):.1f}"


def _same_values(ours: Path, converted: Path) -> bool:
    """Whether its decoding to F32 has gguf-py's decoding of our file, value for value."""
    import numpy as np
    from gguf import GGUFReader, dequantize

    sd_program.convert(ours, converted, "f32")
    theirs = {tensor.name: tensor for tensor in GGUFReader(converted).tensors}
    tensors = GGUFReader(ours).tensors
    return {tensor.name for tensor in tensors} == set(theirs) and all(
        np.array_equal(
            dequantize(tensor.data, tensor.tensor_type),
            dequantize(theirs[tensor.name].data, theirs[tensor.name].tensor_type),
        )
        for tensor in tensors
    )


@main.command("races")
@click.option("--double", default=2, show_default=True)
@click.option("--single", default=4, show_default=True)
@click.option("--repeat", default=3, show_default=True)
@small_option
@folder_option
def races(
    double: int,
    single: int,
    repeat: int,
    small: bool,
    folder: Path | None,
) -> None:
    """`fluxconv quantize` beside its `convert`, in turn, on the same weights: wall time and memory.

    It reads them from one file with Black Forest Labs' names. fluxconv also hashes what it reads
    and wrote, and has the disk hold it for good. Its q4_K has no upgraded tensors, ours of
    `gguf-q4_k_m` has: Q5_K for `attn.qkv`. The share is the median of the pairs, then the least and
    the most.
    """
    size = ["--width", "256", "--heads", "2"] if small else []
    words = ["--double", str(double), "--single", str(single), *size]
    with working_folder(folder) as work:
        source = synthetic(work / "slice", *words) / "transformer"
        bfl = synthetic(work / "bfl", "--layout", "bfl", *words) / "flux-synthetic.safetensors"
        click.echo("| backend | its type | our time | its time | share | our memory | its memory |")
        click.echo("|---|---|---|---|---|---|---|")
        for name, type_name in RACES.items():
            ours, theirs = [], []
            for _ in range(repeat):
                theirs.append(sd_program.convert(bfl, work / "theirs.gguf", type_name))
                ours.append(quantize(source, [name], work / "ours")[0])
            have, want = (median(run.seconds for run in each) for each in (ours, theirs))
            shares = sorted(a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True))
            peak, other = (max(run.peak for run in each) for each in (ours, theirs))
            share = f"{median(shares):.3f} ({shares[0]:.3f} to {shares[-1]:.3f})"
            click.echo(
                f"| `{name}` | {type_name} | {have:.1f} s | {want:.1f} s | {share} "
                f"| {peak / 2**20:,.0f} MiB | {other / 2**20:,.0f} MiB |"
            )


if __name__ == "__main__":
    main()
