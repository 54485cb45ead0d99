"""Every check that needs a GPU, in one go, and one table of what it saw.

    python benchmarks/gpu.py [--folder FOLDER] [--small]

On a machine with a CUDA GPU and fluxconv installed with its `dev` extra: runs the tests that hold
every backend against its library (the same files, the same output after a reload), then quantizes
a synthetic transformer of FLUX.1-dev's full size (24 GB) with every backend on the GPU, each in a
process of its own. Prints GPU, versions, date and the table in Markdown, as `docs/backends.md` has
it. Exits with 1 if anything failed. `--small` takes a slice of 2 + 4 blocks instead.
"""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

import click
from streaming import SYNTHETIC, measure

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.backends import all_backends, missing

ROOT = Path(__file__).parent.parent
LIBRARIES = ("torch", "diffusers", "transformers", "bitsandbytes", "torchao", "optimum-quanto")
TESTS = {
    "equal": "test_equal_to_library.py::test_files_equal_save_pretrained",
    "reload": "test_reload.py::test_reloads_and_computes_what_the_library_quantized",
}


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work [a temporary one].")
@click.option("--small", is_flag=True, help="A slice of 2 + 4 blocks in place of the full size.")
@click.option("--device", default="cuda", show_default=True, help="cpu: only to try the script.")
def main(folder: Path | None, small: bool, device: str) -> None:
    click.echo(machine(device))
    with tempfile.TemporaryDirectory(dir=folder, prefix="fluxconv-gpu-") as name:
        work = Path(name)
        results = run_tests(work)
        blocks = ["--double", "2", "--single", "4"] if small else []
        subprocess.run([sys.executable, str(SYNTHETIC), str(work / "source"), *blocks], check=True)
        click.echo("\n| backend | equal to the library | same output after reload | quantized in |")
        click.echo("|---|---|---|---|")
        failed = False
        for backend in all_backends():
            cells = [cell(results, test, backend) for test in TESTS]
            cells.append(time_of(backend, work, device))
            failed |= any("FAILED" in text for text in cells)
            click.echo(f"| `{backend}` | {' | '.join(cells)} |")
    sys.exit(int(failed))


def machine(device: str) -> str:
    """One line: the GPU, the versions, the date."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("torch finds no CUDA GPU here")
    gpu = torch.cuda.get_device_name() if device == "cuda" else "CPU only"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    return f"{gpu}; {versions}; {datetime.date.today()}"


def run_tests(work: Path) -> dict[str, str]:
    """`passed`, `FAILED` or `not here` for each test and its parameters."""
    report = work / "tests.xml"
    tests = [str(ROOT / "tests" / path) for path in TESTS.values()]
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *tests]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode not in (0, 1):
        raise click.ClickException("the tests could not be run")
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        bad = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        found[name] = "FAILED" if bad else "not here" if skipped else "yes"
    return found


def cell(results: dict[str, str], test: str, backend: str) -> str:
    """What a test found for both components of a backend."""
    name = TESTS[test].rpartition("::")[2]
    answers = {part: results.get(f"{name}[{backend}-{part}]") for part in ARCHITECTURES}
    known = {part: answer for part, answer in answers.items() if answer is not None}
    if not known:
        return "no library to compare with"
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    return ", ".join(f"{part}: {answer}" for part, answer in known.items())


def time_of(name: str, work: Path, device: str) -> str:
    """Seconds to quantize the synthetic transformer, its importing of libraries counted."""
    lack = missing(all_backends()[name], "cuda" if device == "cuda" else "cpu")
    if lack is not None:
        return re.sub(r":.*", "", lack)
    words = ["quantize", str(work / "source" / "transformer"), "--backend", name, "-q"]
    output = work / "out"
    command = [sys.executable, "-m", "fluxconv.commands", *words, "--device", device]
    try:
        run = measure([*command, "-o", str(output)])
    except click.ClickException as error:
        click.echo(error.message, err=True)
        return "FAILED"
    finally:
        shutil.rmtree(output, ignore_errors=True)
    return f"{run.seconds:.0f} s, {run.peak / 2**20:,.0f} MiB of main memory"


if __name__ == "__main__":
    main()
