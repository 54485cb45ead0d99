"""Streaming: time, bytes a second and peak memory, alone and against the libraries' own way.

    python benchmarks/streaming.py against-libraries   a slice of FLUX.1-dev at real width
    python benchmarks/streaming.py whole               the full geometry: 24 GB, T5 another 10 GB

Every run is a process of its own on synthetic weights; peak memory is its largest resident set.
`against-libraries` runs, for each backend whose library can quantize on this machine, the library's
`from_pretrained(quantization_config=...)` and `save_pretrained` and then `fluxconv quantize`, in
turn, and prints the ratio of the best times and of the peaks. fluxconv also hashes what it reads
and what it wrote, and has the disk hold it for good; the libraries do neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.backends import all_backends, missing

SYNTHETIC = Path(__file__).parent.parent / "tests" / "checkpoints" / "synthetic.py"
WHOLE = ("bnb-nf4", "torchao-int8", "quanto-int8", "fp8-layerwise", "gguf-q8_0")

_LIBRARY = """
import sys
from pathlib import Path
from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.backends import get_backend
backend, architecture = get_backend(sys.argv[1]), ARCHITECTURES[sys.argv[2]]
model = backend.quantize_with_library(Path(sys.argv[3]), architecture, (), "cpu")
backend.save_with_library(model, Path(sys.argv[4]), architecture)
"""


@dataclass(frozen=True)
class Run:
    """What one process took: wall seconds, and its largest resident set in bytes."""

    seconds: float
    peak: int


def measure(command: list[str]) -> Run:
    """Run a command in a process of its own."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise click.ClickException(f"failed: {' '.join(command)}\n{said.decode()[-2000:]}")
    return Run(time.perf_counter() - began, usage.ru_maxrss * 1024)


def quantize(source: Path, backends: list[str], output: Path) -> tuple[Run, int]:
    """Run `fluxconv quantize`; returns the run and the bytes written. The output is removed."""
    chosen = [word for backend in backends for word in ("--backend", backend)]
    words = ["quantize", str(source), *chosen, "-q", "-o", str(output), "--device", "cpu"]
    run = measure([sys.executable, "-m", "fluxconv.commands", *words])
    written = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    shutil.rmtree(output)
    return run, written


@contextmanager
def working_folder(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder, prefix="fluxconv-bench-") as name:
        yield Path(name)


def synthetic(place: Path, *words: str) -> Path:
    """Make a synthetic checkpoint of both components."""
    command = [sys.executable, str(SYNTHETIC), str(place), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return place


@click.group(help=__doc__)
def main() -> None:
    pass


folder_option = click.option(
    "--folder", type=click.Path(path_type=Path), help="Where to work [a temporary folder]."
)
component_option = click.option(
    "--component", "components", type=click.Choice(list(ARCHITECTURES)), multiple=True
)


@main.command("against-libraries")
@click.option("--double", default=2, show_default=True)
@click.option("--single", default=4, show_default=True)
@click.option("--t5-layers", default=12, show_default=True)
@click.option("--repeat", default=2, show_default=True)
@click.option("--backend", "chosen", multiple=True, help="[all that the libraries can make here]")
@component_option
@folder_option
def against_libraries(
    double: int,
    single: int,
    t5_layers: int,
    repeat: int,
    chosen: tuple[str, ...],
    components: tuple[str, ...],
    folder: Path | None,
) -> None:
    """Each backend beside its library, on a slice at real width."""
    with working_folder(folder) as work:
        words = ["--double", str(double), "--single", str(single), "--t5-layers", str(t5_layers)]
        parts = components or tuple(ARCHITECTURES)
        source = synthetic(work / "slice", "--components", ",".join(parts), *words)
        script = work / "library.py"
        script.write_text(_LIBRARY)
        click.echo("| component | backend | time | peak memory | peak | library's peak |")
        click.echo("|---|---|---|---|---|---|")
        for part in parts:
            for name, backend in all_backends().items():
                if chosen and name not in chosen:
                    continue
                if missing(backend, "cpu") or backend.library_refuses(ARCHITECTURES[part], "cpu"):
                    continue
                ours, theirs = [], []
                for _ in range(repeat):
                    place = work / "theirs"
                    command = [sys.executable, str(script), name, part, str(source / part)]
                    theirs.append(measure([*command, str(place)]))
                    shutil.rmtree(place)
                    ours.append(quantize(source / part, [name], work / "ours")[0])
                _compare(part, name, ours, theirs)


def _compare(part: str, name: str, ours: list[Run], theirs: list[Run]) -> None:
    seconds = min(run.seconds for run in ours) / min(run.seconds for run in theirs)
    peak, other = max(run.peak for run in ours), max(run.peak for run in theirs)
    click.echo(
        f"| {part} | `{name}` | {seconds:.2f} | {peak / other:.2f} | {peak / 2**20:,.0f} MiB "
        f"| {other / 2**20:,.0f} MiB |"
    )


@main.command("whole")
@click.option("--source", type=click.Path(path_type=Path), help="A checkpoint made before.")
@click.option("--backend", "chosen", multiple=True, default=WHOLE, show_default=True)
@click.option("--each/--no-each", default=True, help="Each backend alone.")
@click.option("--together/--no-together", default=True, help="All of them in one pass.")
@component_option
@folder_option
def whole(
    source: Path | None,
    chosen: tuple[str, ...],
    each: bool,
    together: bool,
    components: tuple[str, ...],
    folder: Path | None,
) -> None:
    """The full geometry of FLUX.1-dev, each backend alone and all in one pass."""
    with working_folder(folder) as work:
        parts = components or tuple(ARCHITECTURES)
        source = source or synthetic(work / "whole", "--components", ",".join(parts))
        click.echo("| component | variants | time | read | written | peak memory |")
        click.echo("|---|---|---|---|---|---|")
        for part in parts:
            files = (source / part).glob("*.safetensors")
            read = sum(file.stat().st_size for file in files)
            runs = [[name] for name in chosen] if each else []
            for names in [*runs, list(chosen)] if together and len(chosen) > 1 else runs:
                run, written = quantize(source / part, names, work / "out")
                label = f"`{names[0]}`" if len(names) == 1 else f"all {len(names)} in one pass"
                click.echo(
                    f"| {part} | {label} | {run.seconds:.0f} s "
                    f"| {read / run.seconds / 1e6:,.0f} MB/s "
                    f"| {written / run.seconds / 1e6:,.0f} MB/s | {run.peak / 2**20:,.0f} MiB |"
                )


if __name__ == "__main__":
    main()
