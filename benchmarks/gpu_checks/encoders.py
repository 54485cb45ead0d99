"""The encoders of GGUF types on a GPU: how fast, and whether their bytes are those of a CPU."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal

import click

from fluxconv.converters.gguf import decode, encode
from fluxconv.converters.gguf.types import TYPES
from gpu_checks.setting import Setting, first_line, heading, row

if TYPE_CHECKING:
    import torch

Effort = Literal["fast", "best"]

EFFORTS: tuple[Effort, ...] = ("fast", "best")
COLUMNS = 4096
ROWS = {False: 1 << 17, True: 1 << 9}  # by `--small`; 1 GiB of bf16, 4 MiB
COMPARED = {False: 1 << 10, True: 1 << 6}  # of those rows, encoded on a CPU too


@click.command("encoders")
@click.option("--type", "names", type=click.Choice(list(TYPES)), multiple=True, help="[all]")
@click.option("--effort", "efforts", type=click.Choice(EFFORTS), multiple=True, help="[both]")
@click.pass_obj
def encoders(setting: Setting, names: tuple[str, ...], efforts: tuple[Effort, ...]) -> None:
    """Weights a second, bytes beside a CPU's, and the error of both, for each GGUF type."""
    weight = gaussian(ROWS[setting.small], setting.device)
    click.echo(f"{weight.nbytes / 2**20:,.0f} MiB of Gaussian weights in bf16.\n")
    heading(
        *("type", "effort", "10⁶ weights/s", "peak GPU memory", "first call"),
        *("blocks unlike a CPU's", "error", "error on a CPU"),
    )
    failed = False
    for name in names or TYPES:
        # A cast knows no effort.
        for effort in (efforts or EFFORTS) if TYPES[name].weights > 1 else EFFORTS[:1]:
            try:
                cells = measured(weight, name, effort, COMPARED[setting.small])
            except Exception as error:  # noqa: BLE001 - a line of the table
                cells, failed = [f"FAILED: {type(error).__name__}: {first_line(error)}"], True
            row(f"`{name}`", effort, *cells)
    sys.exit(int(failed))


def gaussian(rows: int, device: str) -> torch.Tensor:
    """Weights (rows, COLUMNS) in bf16 on the device, the same in every run."""
    import torch

    noise = torch.Generator(device).manual_seed(0)
    weight = torch.empty(rows, COLUMNS, dtype=torch.bfloat16, device=device)
    for part in weight.split(1 << 13):
        part.normal_(std=0.02, generator=noise)
    return weight


def measured(weight: torch.Tensor, name: str, effort: Effort, compared: int) -> list[str]:
    """One line of the table, of rows (rows, COLUMNS), the first `compared` also on the CPU."""
    import torch

    few = weight[:compared]
    seconds_first, ours = timed(few, name, effort)
    on_gpu = weight.is_cuda
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    seconds, _ = timed(weight, name, effort)
    memory = f"{(torch.cuda.max_memory_allocated() - before) / 2**20:,.0f} MiB" if on_gpu else ""
    theirs = encode(few.cpu(), name, effort=effort)
    blocks = few.numel() // TYPES[name].weights
    unlike = (ours != theirs).view(blocks, -1).any(1).sum().item() / blocks
    errors = (relative_rms(each, name, few.cpu()) for each in (ours, theirs))
    speed = f"{weight.numel() / seconds / 1e6:,.0f}"
    return [speed, memory, f"{seconds_first:.1f} s", f"{unlike:.2%}", *map("{:.6f}".format, errors)]


def timed(weight: torch.Tensor, name: str, effort: Effort) -> tuple[float, torch.Tensor]:
    """Seconds to encode, and the bytes on the CPU, which are copied after the clock stops."""
    import torch

    finish = torch.cuda.synchronize if weight.is_cuda else lambda: None
    finish()
    began = time.perf_counter()
    encoded = encode(weight, name, effort=effort)
    finish()
    return time.perf_counter() - began, encoded.cpu()


def relative_rms(blocks: torch.Tensor, name: str, weight: torch.Tensor) -> float:
    """The error after decoding with gguf-py, over the weights' own size."""
    difference = decode(blocks, name, COLUMNS) - weight.float()
    return float(difference.norm() / weight.float().norm())
