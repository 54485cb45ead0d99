"""Streaming against the library's own way, on a slice of FLUX.1-dev at real width.

    python benchmarks/streaming.py [--double 2] [--single 4] [--folder FOLDER]

Makes a synthetic transformer, then quantizes it in processes of their own: with fluxconv for each
backend and for all in one pass, and with `from_pretrained(quantization_config=...)` followed by
`save_pretrained` (torchao int8). Prints wall time and peak resident memory as ratios to that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from fluxconv.converters.backends import all_backends

SYNTHETIC = Path(__file__).parent.parent / "tests" / "checkpoints" / "synthetic.py"

_LIBRARY = """
import sys, torch
from diffusers import FluxTransformer2DModel, TorchAoConfig
from torchao.quantization import Int8WeightOnlyConfig
model = FluxTransformer2DModel.from_pretrained(
    sys.argv[1], dtype=torch.bfloat16, quantization_config=TorchAoConfig(Int8WeightOnlyConfig())
)
model.save_pretrained(sys.argv[2])
"""


def measure(command: list[str]) -> tuple[float, int]:
    """Run a command; returns wall seconds and peak resident bytes of its process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise click.ClickException(f"failed: {' '.join(command)}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024


@click.command(help=__doc__)
@click.option("--double", default=2, show_default=True)
@click.option("--single", default=4, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work [a temporary one].")
def main(double: int, single: int, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix="fluxconv-bench-") as name:
        work = Path(name)
        source = work / "slice"
        blocks = ["--double", str(double), "--single", str(single)]
        subprocess.run([sys.executable, SYNTHETIC, source, *blocks], check=True)
        transformer = source / "transformer"
        weights = sum(file.stat().st_size for file in transformer.glob("*.safetensors"))
        script = work / "library.py"
        script.write_text(_LIBRARY)
        library = measure([sys.executable, str(script), str(transformer), str(work / "library")])
        click.echo(f"{weights / 1e9:.2f} GB of bf16 weights, {double} + {single} blocks")
        click.echo(f"{'':28}{'time':>10}{'memory':>10}{'peak':>12}")
        _row("library, torchao-int8", library, library)
        runs = {name: [name] for name in all_backends()} | {"all in one pass": list(all_backends())}
        for label, names in runs.items():
            chosen = [word for backend in names for word in ("--backend", backend)]
            output = work / f"out-{label}"
            command = [sys.executable, "-m", "fluxconv.commands", "quantize", str(transformer)]
            _row(label, measure([*command, *chosen, "-q", "-o", str(output)]), library)


def _row(label: str, run: tuple[float, int], library: tuple[float, int]) -> None:
    seconds, peak = run
    ratios = f"{seconds / library[0]:>9.2f}x{peak / library[1]:>9.2f}x"
    click.echo(f"{label:28}{ratios}{peak / 2**20:>8.0f} MiB")


if __name__ == "__main__":
    main()
