"""The C programs to measure against, built from their source distributions and kept.

    python benchmarks/building.py

builds all of them, which takes a C++ compiler, CMake and some minutes; a benchmark builds what it
needs itself. The versions stand in `requirements.txt`; only the parts named here are built, without
the Python packages around them. Everything lies in `~/.cache/fluxconv/built`, or under
`XDG_CACHE_HOME`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
JOBS = str(os.cpu_count() or 1)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fluxconv" / "built"


@dataclass(frozen=True)
class Program:
    """One target of a CMake project inside a source distribution, and the file it makes."""

    package: str
    project: str
    target: str
    product: str
    options: tuple[str, ...]


_LLAMA_PARTS = ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP")
_LLAMA = (
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in _LLAMA_PARTS),
    "-DLLAMA_OPENSSL=OFF",
    "-DBUILD_SHARED_LIBS=ON",
)
GGML_BASE = Program(
    "llama-cpp-python", "vendor/llama.cpp", "ggml-base", "bin/libggml-base.so", _LLAMA
)
LLAMA = Program("llama-cpp-python", "vendor/llama.cpp", "llama", "bin/libllama.so", _LLAMA)
STABLE_DIFFUSION = Program(
    "stable-diffusion-cpp-python",
    "vendor/stable-diffusion.cpp",
    "sd-cli",
    "bin/sd-cli",
    ("-DSD_WEBP=OFF", "-DSD_WEBM=OFF"),
)


def ggml_base() -> Path:
    """`libggml-base.so` of llama.cpp, where ggml's reference quantization functions are."""
    return built(GGML_BASE)


def llama() -> Path:
    """`libllama.so`, its ggml libraries beside it."""
    return built(LLAMA)


def stable_diffusion() -> Path:
    """stable-diffusion.cpp's command line program."""
    return built(STABLE_DIFFUSION)


def built(program: Program) -> Path:
    """Build a program with the release settings that its own project has, or find it built.

    Raises `click.ClickException` where the download or a build step fails.
    """
    requirement = pinned(program.package)
    folder = CACHE / requirement / "build"
    product = folder / program.product
    if not product.exists():
        project = source(program.package) / program.project
        click.echo(f"Building {program.target} of {requirement}: once, some minutes", err=True)
        configure = ["-S", str(project), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"]
        _run("cmake", *configure, *program.options)
        _run("cmake", "--build", str(folder), "--target", program.target, "--parallel", JOBS)
    return product


def pinned(package: str) -> str:
    """The line of `requirements.txt` about a package, such as `llama-cpp-python==0.3.36`."""
    lines = REQUIREMENTS.read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{package}=="))


def source(package: str) -> Path:
    """The unpacked source distribution of a package, downloaded where it is not there yet."""
    requirement = pinned(package)
    place = CACHE / requirement / "source"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as work:
            chosen = ["--no-binary", ":all:", "--no-deps", "--dest", work, requirement]
            _run(sys.executable, "-m", "pip", "download", "--quiet", *chosen)
            (archive,) = Path(work).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(work, filter="data")
            (root,) = (path for path in Path(work).iterdir() if path.is_dir())
            root.rename(place)
    return place


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise click.ClickException(f"{command[0]} is not installed; the build needs it")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise click.ClickException(f"failed: {' '.join(command)}\n{done.stdout[-2000:]}")


if __name__ == "__main__":
    for each in (GGML_BASE, LLAMA, STABLE_DIFFUSION):
        click.echo(built(each))
