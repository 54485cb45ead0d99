"""What `fluxconv run` costs beside its work, and what a second process brings.

    python benchmarks/recipe.py overhead [--rounds 5]     the tiny release, and its commands by hand
    python benchmarks/recipe.py processes [--rounds 3]    one process and two, each with one thread

Both print ratios of wall time, each of two things done in turn within the round. `overhead` runs
`quantize`, `validate` and `push` on the recipe of `make demo`, and `run` on the recipe itself, each
with a new rehearsal Hub and nothing drawn before. `processes` splits the pass over synthetic
weights at real width into two parts.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from streaming import folder_option, synthetic, working_folder

from fluxconv.converters.progress import Silent
from fluxconv.hub.rehearsal import running
from fluxconv.recipes.driving import Drive
from fluxconv.recipes.executors.local import LocalExecutor
from fluxconv.recipes.graph import Graph, Node
from fluxconv.recipes.markers import Marker, Markers
from fluxconv.recipes.watching import ProgressWatcher

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "examples" / "tiny-flux.yaml"
TINY = ROOT / "tests" / "checkpoints" / "tiny-flux"
BACKENDS = ("bnb-nf4", "torchao-int8", "gguf-q8_0")
TITLE = "Tiny Flux, quantized"


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--rounds", default=5, show_default=True)
@folder_option
def overhead(rounds: int, folder: Path | None) -> None:
    """`run` against the same commands by hand."""
    ratios = []
    for number in range(rounds):
        ways = {"by hand": _by_hand, "run": _by_recipe}
        # In turn, so that neither always meets the warmer machine.
        order = list(ways) if number % 2 else list(reversed(ways))
        took = {}
        for name in order:
            with working_folder(folder) as work, _hub(work) as environment:
                began = time.perf_counter()
                ways[name](work / "out", environment)
                took[name] = time.perf_counter() - began
        ratios.append(took["run"] / took["by hand"])
        click.echo(f"round {number + 1}: run / by hand = {ratios[-1]:.2f}")
    click.echo(f"median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


def _by_hand(output: Path, environment: dict[str, str]) -> None:
    chosen = [word for backend in BACKENDS for word in ("--backend", backend)]
    variants = [str(output / f"tiny-flux-{backend}") for backend in BACKENDS]
    _fluxconv(["quantize", str(TINY), *chosen, "-o", str(output)], environment)
    _fluxconv(["validate", *variants, "--reference", str(TINY), "--preset", "quick"], environment)
    _fluxconv(["push", *variants, "--namespace", "rehearsal", "--collection", TITLE], environment)


def _by_recipe(output: Path, environment: dict[str, str]) -> None:
    _fluxconv(["run", str(RECIPE), "-o", str(output)], environment)


def _fluxconv(words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fluxconv.commands", *words, "-q"],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise click.ClickException(f"failed: {' '.join(words)}\n{done.stderr[-2000:]}")


@contextmanager
def _hub(work: Path) -> Iterator[dict[str, str]]:
    """A new rehearsal Hub, and the environment of who pushes to it; nothing is drawn yet there.

    What torch compiles stays in the user's cache, for both ways alike.
    """
    caches = {"XDG_STATE_HOME": work / "state", "HF_HOME": work / "hf"}
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    (work / "cache" / "fluxconv").mkdir(parents=True)
    for place in (kept / "fluxconv").iterdir() if (kept / "fluxconv").is_dir() else ():
        if place.name != "references":
            (work / "cache" / "fluxconv" / place.name).symlink_to(place)
    caches["XDG_CACHE_HOME"] = work / "cache"
    with running(work / "hub") as hub:
        yield {
            **os.environ,
            **{name: str(place) for name, place in caches.items()},
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
        }


@main.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--backend", "backends", multiple=True, default=["gguf-q3_k_s"], show_default=True)
@click.option("--small", is_flag=True, help="Narrow weights, to try the script.")
@folder_option
def processes(rounds: int, backends: tuple[str, ...], small: bool, folder: Path | None) -> None:
    """Two processes against one, each with one thread."""
    os.environ["FLUXCONV_CORES"] = os.environ["OMP_NUM_THREADS"] = "1"
    size = ["--width", "512", "--heads", "4"] if small else []
    best: dict[int, float] = {}
    with working_folder(folder) as work:
        source = synthetic(work / "slice", "--double", "2", "--single", "4", *size)
        for number in range(rounds + 1):
            for count in (1, 2) if number % 2 else (2, 1):
                output = work / f"out-{number}-{count}"
                took = _pass(source / "transformer", backends, output, count)
                shutil.rmtree(output)
                if number:  # the first round reads the source into the system's cache
                    best[count] = min(took, best.get(count, took))
    click.echo(f"one process / two processes = {best[1] / best[2]:.2f}, of the best times")


def _pass(source: Path, backends: tuple[str, ...], output: Path, count: int) -> float:
    """Seconds that a pass in two parts takes, from the first one's start to the last one's end, in
    `count` processes."""
    fetch = Node("fetch.slice", "fetch", _FETCH | {"id": str(source)})
    making = {
        "backends": [{"name": backend, "options": {}} for backend in backends],
        "components": [],
        "device": "cpu",
        "parts": 2,
    }
    parts = [
        Node(f"part.slice-{number}", "part", {**making, "part": number}, (fetch.id,))
        for number in (0, 1)
    ]
    graph = Graph([fetch, *parts])
    with Markers(output).locked(), LocalExecutor(processes=count) as executor:
        done = Drive(graph, output, executor, ProgressWatcher(Silent()), "benchmark").go()
    done.require()
    marked: list[Marker] = [done.markers[node.id] for node in parts]
    return max(each.ended or 0 for each in marked) - min(each.started or 0 for each in marked)


_FETCH = {"base": None, "revision": None, "source_id": None, "allow_requantize": False}


if __name__ == "__main__":
    main()
