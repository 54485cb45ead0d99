"""Ten GGUF types in one pass: how often the source is read, and the time beside ten passes.

    python benchmarks/one_pass.py [--small] [--folder FOLDER]

On a slice of synthetic weights at real width. What a process read is the kernel's count (`rchar`
in `/proc/PID/io`) less what fluxconv reads back of its own files, once, to hash them; how much that
grows with the source, from one of 10 MB on, leaves out Python and the libraries.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
from streaming import folder_option, quantize, synthetic, working_folder

TEN = (
    "gguf-q8_0",
    "gguf-q6_k",
    "gguf-q5_k_m",
    "gguf-q5_0",
    "gguf-q4_k_m",
    "gguf-q4_0",
    "gguf-q3_k_m",
    "gguf-q2_k",
    "gguf-iq4_xs",
    "gguf-iq4_nl",
)


@click.command(help=__doc__)
@click.option("--double", default=2, show_default=True)
@click.option("--single", default=4, show_default=True)
@click.option("--backend", "chosen", multiple=True, default=TEN, show_default=True)
@click.option("--small", is_flag=True, help="Narrow weights, to try the script.")
@folder_option
def main(
    double: int, single: int, chosen: tuple[str, ...], small: bool, folder: Path | None
) -> None:
    size = ["--width", "512", "--heads", "4"] if small else []
    with working_folder(folder) as work:
        words = ["--double", str(double), "--single", str(single), *size]
        source = synthetic(work / "slice", *words) / "transformer"
        nothing = ["--double", "1", "--single", "1", "--width", "256", "--heads", "2"]
        tiny = synthetic(work / "tiny", *nothing) / "transformer"
        weights, fewer = size_of(source), size_of(tiny)
        alone = 0.0
        click.echo(f"A source of {weights / 1e6:,.0f} MB.\n")
        click.echo("| variants | time | peak memory | the source is read |")
        click.echo("|---|---|---|---|")
        for names in [*([name] for name in chosen), list(chosen)]:
            run, _ = quantize(source, names, work / "out")
            read = read_by(names, source, work / "out") - read_by(names, tiny, work / "out")
            label = f"`{names[0]}`" if len(names) == 1 else f"all {len(names)} in one pass"
            click.echo(
                f"| {label} | {run.seconds:.1f} s | {run.peak / 2**20:,.0f} MiB "
                f"| {read / (weights - fewer):.2f} times |"
            )
            alone += run.seconds if len(names) == 1 else 0
        click.echo(f"\nOne pass takes {run.seconds / alone:.2f} of {alone:.1f} s, the sum of all.")


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def read_by(backends: list[str], source: Path, output: Path) -> int:
    """Bytes that `fluxconv quantize` read, without those it wrote itself and read once."""
    chosen = [word for backend in backends for word in ("--backend", backend)]
    words = ["quantize", str(source), *chosen, "-q", "-o", str(output), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fluxconv.commands", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Waits, but leaves the process in the table: its counts go with it.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    counts = Path(f"/proc/{process.pid}/io").read_text()
    if process.wait():
        raise click.ClickException(f"failed: {' '.join(words)}")
    written = size_of(output)
    shutil.rmtree(output)
    (read,) = re.findall(r"^rchar: (\d+)$", counts, re.MULTILINE)
    return int(read) - written


if __name__ == "__main__":
    main()
