"""Every check that needs a GPU; each prints tables in Markdown, as `docs/gpu.md` has them.

    python benchmarks/gpu.py [--folder FOLDER] [--small]     all of them
    python benchmarks/gpu.py encoders --type Q4_K            one of them, with settings of its own

For a machine with a CUDA GPU and fluxconv installed with its `dev` extra. Each check runs in a
process of its own and prints what it sees as soon as it sees it, so one that fails or is stopped
takes nothing from the others. Exits with 1 if anything failed.
"""

from __future__ import annotations

import datetime
import os
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import click
from gpu_checks.cards import cards
from gpu_checks.encoders import encoders
from gpu_checks.performance import modes
from gpu_checks.same_bytes import same_bytes
from gpu_checks.setting import Setting
from gpu_checks.speed import speed
from gpu_checks.suite import suite

LIBRARIES = (
    *("torch", "diffusers", "transformers", "huggingface-hub"),
    *("bitsandbytes", "torchao", "optimum-quanto", "gguf"),
)


@click.group(help=__doc__, invoke_without_command=True)
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), default="cuda", help="cpu: to try the checks."
)
@click.option("--small", is_flag=True, help="Little work, to see that each check runs here.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work [a temporary one].")
@click.option("--limit", default=1800, show_default=True, help="Seconds for each of all checks.")
@click.option("--header/--no-header", default=True, help="Print the machine first.")
@click.pass_context
def main(
    context: click.Context, device: str, small: bool, folder: Path | None, limit: int, header: bool
) -> None:
    context.obj = Setting(device, small, folder)
    if header:
        click.echo(f"{machine(device)}\n")
    if context.invoked_subcommand is not None:
        return
    common = ["--device", device, "--no-header", *(["--small"] if small else [])]
    failed = False
    for name in main.commands:
        click.echo(f"## {name}\n")
        # Here, and not there: what a check that was stopped leaves behind is gone, too.
        with context.obj.work() as work:
            command = [sys.executable, __file__, *common, "--folder", str(work), name]
            why = failure(command, limit)
        if why is not None:
            failed = True
            click.echo(f"\n**`{name}` FAILED**: {why}")
        click.echo()
    sys.exit(int(failed))


for command in (suite, same_bytes, cards, speed, encoders, modes):
    main.add_command(command)


def failure(command: list[str], limit: int) -> str | None:
    """Run one check, with all that it starts, for `limit` seconds; what went wrong, or None."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return f"exit status {status}" if status else None


def machine(device: str) -> str:
    """One line: the GPU, the versions, the date."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("torch finds no CUDA GPU here; try the script with --device cpu")
    gpu = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    cuda = f", CUDA {torch.version.cuda}" if device == "cuda" else ""
    python = f"Python {platform.python_version()}{cuda}, {versions}"
    return f"{gpu}, {os.cpu_count()} CPU cores; {python}; {datetime.date.today()}"


if __name__ == "__main__":
    main()
