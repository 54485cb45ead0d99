"""Quantizing a large transformer on a GPU: seconds, weights a second, memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from fluxconv.converters import open_checkpoint
from fluxconv.converters.backends import all_backends, missing
from gpu_checks.setting import SYNTHETIC, TINY_FLUX, Setting, first_line, heading, row

#: Blocks of the synthetic transformer by `--small`; 19 and 38 are FLUX.1's.
BLOCKS = {False: (19, 38), True: (1, 1)}
# A process of its own for each backend, so that its memory is its own. The tiny Flux first: what
# libraries import and compile is not the speed of quantizing.
_TIMED = """
import json, resource, sys, time
from pathlib import Path
import torch
from fluxconv.converters import open_checkpoint, quantize
name, tiny, source, place, device = sys.argv[1:]
quantize(open_checkpoint(tiny), [name], Path(place) / "tiny", device=device)
if device == "cuda":
    torch.cuda.reset_peak_memory_stats()
began = time.perf_counter()
(made,) = quantize(open_checkpoint(source), [name], Path(place), device=device)
seconds = time.perf_counter() - began
print(json.dumps({
    "seconds": seconds,
    "written": sum(file.size for file in made.manifest.files.values()),
    "gpu": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
    "main": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


@click.command("speed")
@click.option("--backend", "chosen", multiple=True, help="[all]")
@click.option("--double", type=int, help="Double blocks of the transformer [19].")
@click.option("--single", type=int, help="Single blocks [38].")
@click.pass_obj
def speed(
    setting: Setting, chosen: tuple[str, ...], double: int | None, single: int | None
) -> None:
    """Quantize a synthetic transformer of FLUX.1's width with each backend."""
    blocks = BLOCKS[setting.small]
    blocks = (double or blocks[0], single or blocks[1])
    with setting.work() as work:
        words = ["--double", str(blocks[0]), "--single", str(blocks[1])]
        command = [sys.executable, str(SYNTHETIC), str(work / "source"), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        source = work / "source" / "transformer"
        (component,) = open_checkpoint(source).components.values()
        weights = component.nbytes // 2
        click.echo(
            f"{blocks[0]} double and {blocks[1]} single blocks, {weights / 1e9:.2f} billion weights"
            f" in bf16. {hashing(source)}\n"
        )
        heading(
            *("backend", "seconds", "10⁶ weights/s", "written"),
            *("peak GPU memory", "peak main memory"),
        )
        failed = False
        for backend in chosen or all_backends():
            cells = list(measured(backend, source, work, setting.device, weights))
            failed |= "FAILED" in cells[0]
            row(f"`{backend}`", *cells)
    sys.exit(int(failed))


def hashing(source: Path) -> str:
    """How fast one thread reads and hashes the source here: what any backend takes at least."""
    total, began = 0, time.perf_counter()
    for file in source.glob("*.safetensors"):
        with file.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
            total += stream.tell()
    return f"Reading and hashing it alone: {time.perf_counter() - began:.1f} s."


def measured(name: str, source: Path, work: Path, device: str, weights: int) -> Iterator[str]:
    """The cells of a backend."""
    lack = missing(all_backends()[name], device)
    if lack is not None:
        yield lack.partition(":")[0]
        return
    place = work / name
    command = [sys.executable, "-c", _TIMED, name, str(TINY_FLUX), str(source), str(place), device]
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(place, ignore_errors=True)
    if done.returncode:
        yield f"FAILED: {first_line(done.stderr.strip().rpartition(chr(10))[2])}"
        return
    found = json.loads(done.stdout.splitlines()[-1])
    yield f"{found['seconds']:.1f}"
    yield f"{weights / found['seconds'] / 1e6:,.0f}"
    yield f"{found['written'] / 1e9:.2f} GB"
    yield f"{found['gpu'] / 2**20:,.0f} MiB"
    yield f"{found['main'] / 2**20:,.0f} MiB"
