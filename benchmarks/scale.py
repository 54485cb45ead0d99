"""Scale: what a second worker brings, and where many workers are limited.

    python benchmarks/scale.py workers    one and two workers of one thread on a real Ray cluster
    python benchmarks/scale.py rates      reading, hashing, encoding, writing; and the model of it

Both work on a slice of FLUX.1-dev at real width, filled with noise, on disk at --folder. Nothing is
printed in seconds: `workers` gives the ratio of the best times of runs that take turns, `rates` is
in units of what one thread encodes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from ray_cluster import cluster, ended, release, request  # noqa: E402

from fluxconv.converters import open_checkpoint, plan  # noqa: E402
from fluxconv.recipes.executors.base import Ended, Started  # noqa: E402
from fluxconv.recipes.executors.ray import RayExecutor  # noqa: E402

_ENCODED = ("gguf-q4_k_s", "gguf-q3_k_s", "bnb-nf4", "torchao-int8", "gguf-q8_0")
_PIECE = 1 << 22

folder_option = click.option(
    "--folder", type=click.Path(path_type=Path), help="Where to work [the usual temporary folder]."
)


@contextmanager
def slice_of_flux(folder: Path | None, *words: str) -> Iterator[Path]:
    """A pipeline-less transformer of real width with few blocks."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="fluxconv-scale-") as name:
        place = Path(name)
        command = [sys.executable, str(TESTS / "checkpoints" / "synthetic.py"), str(place / "tiny")]
        subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
        yield place


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command("workers")
@click.option("--backend", default="gguf-q4_k_s", show_default=True)
@click.option("--parts", default=8, show_default=True)
@click.option("--repeat", default=3, show_default=True)
@folder_option
def workers(backend: str, parts: int, repeat: int, folder: Path | None) -> None:
    """The same parts, on one worker and on two, in turn."""
    best: dict[int, float] = {}
    with (
        slice_of_flux(folder, "--double", "1", "--single", "2") as work,
        cluster(2) as nodes,
        RayExecutor(address=nodes.address) as executor,
    ):
        source = work / "tiny" / "transformer"
        for round in range(repeat + 1):  # the first one imports and compiles
            for count in (1, 2):
                output = work / "out"
                seconds = _parts(executor, source, backend, parts, output, count)
                shutil.rmtree(output)
                if round:
                    best[count] = min(best.get(count, seconds), seconds)
    click.echo("| workers | parts | speed |\n|---|---|---|")
    for count, seconds in best.items():
        click.echo(f"| {count} | {parts} | {best[1] / seconds:.2f} |")


def _parts(
    executor: RayExecutor, source: Path, backend: str, parts: int, output: Path, count: int
) -> float:
    """Seconds that the parts take with so many workers."""
    graph = release(source, [backend], parts)
    executor.submit(request(graph["fetch.tiny"], output, {}))
    event, _ = ended(executor)
    assert isinstance(event, Ended)
    assert event.outcome.result is not None, event.outcome.problem
    results = {"fetch.tiny": event.outcome.result}
    waiting = [node for node in graph.values() if node.kind == "part"]
    began, running, done = 0.0, 0, 0
    while done < parts:
        while waiting and running < count:
            executor.submit(request(waiting.pop(), output, results))
            running += 1
        said = executor.next(0.05)
        if isinstance(said, Started) and not began:
            began = time.perf_counter()
        if isinstance(said, Ended):
            assert said.outcome.result is not None, said.outcome.problem
            running, done = running - 1, done + 1
    return time.perf_counter() - began


@main.command("rates")
@click.option("--backend", "chosen", multiple=True, default=_ENCODED, show_default=True)
@folder_option
def rates(chosen: tuple[str, ...], folder: Path | None) -> None:
    """What one thread reads, hashes, encodes and writes, and what follows for many workers."""
    with slice_of_flux(folder, "--double", "1", "--single", "0") as work:
        source = open_checkpoint(work / "tiny" / "transformer")
        (component,) = source.components.values()
        file = component.headers[0].file
        encoding = {name: _encoding(work, name) for name in chosen}
        unit = encoding[chosen[0]]
        # One thread each, so its own time is what counts, whatever else the machine does; but a
        # disk is waited for.
        own, passing = time.process_time, time.perf_counter
        reading = _fastest(own, lambda: _read(file, lambda piece: None)) / unit
        hashing = _fastest(own, lambda: _read(file, hashlib.sha256().update)) / unit
        writing = _fastest(passing, lambda: _write(work / "written", component.nbytes)) / unit
        shares = {
            item.backend.name: item.weight_bytes / component.nbytes
            for item in plan(source, list(chosen))
        }
    click.echo(f"In units of one thread that encodes {chosen[0]}, bytes of the source a second:\n")
    click.echo("| what | rate |\n|---|---|")
    for name, rate in (("reading", reading), ("reading and sha256", hashing), ("writing", writing)):
        click.echo(f"| {name} | {rate:.1f} |")
    for name, rate in encoding.items():
        click.echo(f"| encoding {name} | {rate / unit:.2f} |")
    click.echo("\n| workers | " + " | ".join(chosen) + " | all of them in one pass |")
    click.echo("|---|" + "---|" * (len(chosen) + 1))
    sets = [*([name] for name in chosen), list(chosen)]
    for workers in (1, 2, 8, 64, 512):
        cells = []
        for names in sets:
            encode = sum(unit / encoding[name] for name in names)  # of one byte of the source
            written = sum(shares[name] for name in names)
            alone = encode + (1 + written) / hashing
            # What is not split: hashing the source, and each variant, two files at a time.
            serial = (1 + written / min(2, len(names))) / hashing
            cells.append(f"{alone / (encode / workers + serial):.1f}")
        click.echo(f"| {workers} | " + " | ".join(cells) + " |")


def _encoding(work: Path, backend: str) -> float:
    """Bytes of the source that one thread encodes in a second, with nothing else to wait for."""
    words = [sys.executable, "-c", _ENCODE, str(work / "tiny" / "transformer"), backend]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.split()[-1])


_ENCODE = """
import sys, time, torch
from fluxconv.converters import open_checkpoint, plan
from fluxconv.converters.preparation import prepare
from fluxconv.converters.progress import Silent
from fluxconv.converters.stream import _jobs, Output
torch.set_num_threads(1)
source = open_checkpoint(sys.argv[1])
(item,) = plan(source, [sys.argv[2]])
(component,) = item.components
prepare([component], "cpu", Silent())
class Nowhere:
    def put(self, nbytes, job): pass
(read,) = source.components.values()
best = 0.0
for _ in range(3):
    seconds, nbytes = 0.0, 0
    for name, weight in read.weights():
        began = time.process_time()
        for job in _jobs(Output(component, None, None, {}), name, weight, {}, Nowhere()):
            job()
        seconds += time.process_time() - began
        nbytes += weight.nbytes
    best = max(best, nbytes / seconds)
print(best)
"""


def _fastest(clock: Callable[[], float], work: Callable[[], int]) -> float:
    """Bytes a second, the best of a few times."""
    best = 0.0
    for _ in range(3):
        began = clock()
        nbytes = work()
        best = max(best, nbytes / (clock() - began))
    return best


def _read(file: Path, then: Callable[[memoryview], object]) -> int:
    buffer = memoryview(bytearray(_PIECE))
    total = 0
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            then(buffer[:count])
            total += count
    return total


def _write(file: Path, nbytes: int) -> int:
    buffer = os.urandom(_PIECE)
    with file.open("wb", buffering=0) as stream:
        for _ in range(nbytes // _PIECE):
            stream.write(buffer)
        os.fsync(stream.fileno())
    file.unlink()
    return nbytes // _PIECE * _PIECE


if __name__ == "__main__":
    main()
