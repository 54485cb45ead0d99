"""Publishing: throughput beside the Hub's own client, and peak memory, against a rehearsal Hub.

    python benchmarks/publishing.py [--variants 20] [--megabytes 1000] [--transport xet]

Variants of random data are pushed and downloaded, once by `fluxconv`, once by `upload_folder` and
`snapshot_download` of huggingface_hub, in turn; whoever was second comes first in the next batch.
A push meets a fresh Hub folder, a fresh cache and a disk with nothing left to write. Variants are
made, sent and deleted a batch at a time, so that 20 GB of them never lie on the disk at once: a
batch takes its own size twice, and once more while it is downloaded.

A ratio is that of throughputs, ours by theirs, over all batches, with the least and the largest of
a batch. "whole" are the processes from start to end. Our push then has also hashed every file
before the first byte goes, and has read every repository back; "upload" leaves that out: from the
first byte to the commit, beside the client's `upload_folder`. Our download has compared every file
with its hash and has the disk hold it for good; beside the client's "on disk" it has done the
latter, too, as the client does not. Peak memory is that of the process and its children together:
the largest sum of resident sets, in which what they share counts for each, and in brackets of
proportional ones, which are looked at less often.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
from streaming import folder_option, working_folder

from fluxconv.converters import Variant, open_variant
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.hub.rehearsal import RehearsalHub, running

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

USER, TITLE = "rehearsal", "Random"
#: As in a real variant, nearly all bytes are in two files.
LARGE = ("transformer/random.safetensors", "text_encoder_2/random.safetensors")
_PIECE = 1 << 22
#: Seconds between two looks at the memory of processes, and looks for one that adds up what they
#: share: the kernel then walks through all of it.
_LOOK, _CLOSER = 0.2, 5

_UPLOAD = """
import json, sys, time
from pathlib import Path
from huggingface_hub import HfApi
api, seconds = HfApi(), 0.0
for folder in sys.argv[2:]:
    name = sys.argv[1] + "/" + Path(folder).name
    api.create_repo(name, private=True)
    began = time.perf_counter()
    api.upload_folder(repo_id=name, folder_path=folder)
    seconds += time.perf_counter() - began
print(json.dumps({"upload": seconds}))
"""
_DOWNLOAD = """
import json, os, sys, time
from pathlib import Path
from huggingface_hub import HfApi
api, seconds = HfApi(), 0.0
for name in sys.argv[2:]:
    place = Path(sys.argv[1], name)
    api.snapshot_download(name, local_dir=place)
    began = time.perf_counter()
    for path in [place, *place.rglob("*")]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    seconds += time.perf_counter() - began
print(json.dumps({"on disk": seconds}))
"""


@dataclass(frozen=True)
class Run:
    """A process that has ended well: what it said, with the moments of its lines on stderr; memory
    is in bytes, of its children too."""

    seconds: float
    resident: int
    proportional: int
    out: str
    said: tuple[tuple[float, str], ...]


@dataclass
class Measured:
    """The seconds of each batch by what was measured, and the largest peaks."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    resident: int = 0
    proportional: int = 0

    def add(self, run: Run, **parts: float) -> None:
        for name, seconds in {"whole": run.seconds, **parts}.items():
            self.seconds.setdefault(name.replace("_", " "), []).append(seconds)
        self.resident = max(self.resident, run.resident)
        self.proportional = max(self.proportional, run.proportional)


@click.command(help=__doc__)
@click.option("--variants", default=20, show_default=True)
@click.option("--megabytes", default=1000, show_default=True, help="Of each variant.")
@click.option("--at-once", default=4, show_default=True, help="Variants of a batch.")
@click.option(
    "--transport",
    "transports",
    type=click.Choice(["xet", "lfs"]),
    multiple=True,
    default=("xet", "lfs"),
    show_default=True,
)
@folder_option
def main(
    variants: int, megabytes: int, at_once: int, transports: tuple[str, ...], folder: Path | None
) -> None:
    results: dict[tuple[str, str, str], Measured] = {}
    server = dict.fromkeys(transports, 0)
    with working_folder(folder) as work:
        template = quantized(work / "template")
        for batch, first in enumerate(range(0, variants, at_once)):
            numbers = range(first, min(first + at_once, variants))
            made = [randomized(template, work / "made", each, megabytes) for each in numbers]
            for transport in transports:
                order = ["ours", "theirs"] if batch % 2 == 0 else ["theirs", "ours"]
                for who in order:
                    with fresh_hub(work / "hub", transport) as (hub, environment):
                        run, parts = pushed(who, made, environment)
                        _note(results, (transport, "push", who), run, parts)
                        if who == "ours":
                            slug = json.loads(run.out)["collection"]["slug"]
                            for each in order:
                                place = work / "downloaded"
                                run, parts = downloaded(each, made, slug, place, environment)
                                _note(results, (transport, "download", each), run, parts)
                                shutil.rmtree(place)
                        peak = psutil.Process(hub.process.pid).memory_info().rss
                        server[transport] = max(server[transport], _high_water(hub, peak))
            shutil.rmtree(work / "made")
    _show(results, server, variants * megabytes)


def quantized(folder: Path) -> Variant:
    """A variant of the tiny Flux, made in a process of its own: this one needs no torch."""
    words = ["quantize", str(TESTS / "checkpoints" / "tiny-flux"), "--backend", "torchao-int8"]
    command = [sys.executable, "-m", "fluxconv.commands", *words, "-q", "-o", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (place,) = folder.iterdir()
    return open_variant(place)


def randomized(template: Variant, folder: Path, number: int, megabytes: int) -> Variant:
    """A copy of the variant that holds so much random data more, with a report that passed."""
    from reported import copied, reported

    made = copied(template, folder, name=f"random-{number}")
    manifest = json.loads((made.root / MANIFEST_NAME).read_text("utf-8"))
    for name in LARGE:
        size, digest = megabytes * 1_000_000 // len(LARGE), hashlib.sha256()
        with (made.root / name).open("wb") as stream:
            for start in range(0, size, _PIECE):
                piece = os.urandom(min(_PIECE, size - start))
                stream.write(piece)
                digest.update(piece)
        manifest["files"][name] = {"size": size, "sha256": digest.hexdigest()}
    (made.root / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2), "utf-8")
    return reported(open_variant(made.root))


@contextmanager
def fresh_hub(folder: Path, transport: str) -> Iterator[tuple[RehearsalHub, dict[str, str]]]:
    """A Hub without anything in it, and the environment of a client that knows nothing yet."""
    with running(folder / "served") as hub:
        yield (
            hub,
            {
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": hub.token,
                "HF_HOME": str(folder / "home"),
                "HF_HUB_DISABLE_XET": str(int(transport == "lfs")),
                "HF_HUB_OFFLINE": "0",
                "XDG_STATE_HOME": str(folder / "state"),
            },
        )
    shutil.rmtree(folder)


def pushed(
    who: str, variants: list[Variant], environment: dict[str, str]
) -> tuple[Run, dict[str, float]]:
    """Push them to new repositories; the run, and the seconds of the upload in it."""
    roots = [str(variant.root) for variant in variants]
    if who == "theirs":
        run = watched([sys.executable, "-c", _UPLOAD, USER, *roots], environment)
        return run, {"upload": json.loads(run.out)["upload"]}
    words = ["push", *roots, "--namespace", USER, "--collection", TITLE, "--json"]
    run = watched([sys.executable, "-m", "fluxconv.commands", *words], environment)
    upload, began = 0.0, 0.0
    for moment, line in run.said:
        event = json.loads(line)
        if event["event"] == "start" and event["task"].startswith("Uploading"):
            began = moment
        elif event["event"] == "step" and event["step"] == "commit":
            upload += moment - began
    return run, {"upload": upload}


def downloaded(
    who: str, variants: list[Variant], slug: str, place: Path, environment: dict[str, str]
) -> tuple[Run, dict[str, float]]:
    """Fetch what was pushed; the run, and the seconds until the disk holds it for good."""
    if who == "ours":
        words = ["download", slug, "-o", str(place), "-q"]
        run = watched([sys.executable, "-m", "fluxconv.commands", *words], environment)
        return run, {"on_disk": run.seconds}
    names = [f"{USER}/{variant.name}" for variant in variants]
    run = watched([sys.executable, "-c", _DOWNLOAD, str(place), *names], environment)
    synced = json.loads(run.out)["on disk"]
    whole = Run(run.seconds - synced, run.resident, run.proportional, run.out, run.said)
    return whole, {"on_disk": run.seconds}


def watched(command: list[str], environment: dict[str, str]) -> Run:
    """Run a command on a machine whose disk has nothing left to write, and watch its memory."""
    os.sync()
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    said: list[tuple[float, str]] = []
    out: list[str] = []
    readers = [
        threading.Thread(target=_read, args=(process.stderr, said)),
        threading.Thread(target=lambda: out.append(process.stdout.read())),  # type: ignore[union-attr]
    ]
    for reader in readers:
        reader.start()
    top, looks, resident, proportional = psutil.Process(process.pid), 0, 0, 0
    while process.poll() is None:
        resident = max(resident, _memory(top, "rss"))
        if looks % _CLOSER == 0:
            proportional = max(proportional, _memory(top, "pss"))
        looks += 1
        time.sleep(_LOOK)
    seconds = time.perf_counter() - began
    for reader in readers:
        reader.join()
    if process.returncode:
        text = "\n".join(line for _, line in said)
        raise click.ClickException(f"failed: {' '.join(command)[:200]}\n{text[-2000:]}")
    return Run(seconds, resident, proportional, out[0], tuple(said))


def _read(stream: Any, said: list[tuple[float, str]]) -> None:
    for line in stream:
        said.append((time.perf_counter(), line.rstrip("\n")))


def _memory(top: psutil.Process, what: str) -> int:
    """Bytes of a process and all below it; what has just ended has none."""
    found = 0
    try:
        processes = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for each in processes:
        try:
            memory = each.memory_info() if what == "rss" else each.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found += getattr(memory, what)
    return found


def _high_water(hub: RehearsalHub, least: int) -> int:
    """The largest resident set that the server has had."""
    status = Path(f"/proc/{hub.process.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return max([least, *(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))])


def _note(
    results: dict[tuple[str, str, str], Measured],
    which: tuple[str, str, str],
    run: Run,
    parts: dict[str, float],
) -> None:
    results.setdefault(which, Measured()).add(run, **parts)
    facts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
    click.echo(f"{' '.join(which)}: {run.seconds:.1f} s ({facts})".replace("_", " "), err=True)


def _show(
    results: dict[tuple[str, str, str], Measured], server: dict[str, int], megabytes: int
) -> None:
    click.echo("| transport | what | ratio | of a batch | ours | theirs | peak | theirs |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for transport, what, who in results:
        if who == "theirs":
            continue
        ours, theirs = results[transport, what, who], results[transport, what, "theirs"]
        for part, mine in ours.seconds.items():
            other = theirs.seconds[part]
            ratios = [b / a for a, b in zip(mine, other, strict=True)]
            click.echo(
                f"| {transport} | {what}, {part} | {sum(other) / sum(mine):.2f} "
                f"| {min(ratios):.2f} to {max(ratios):.2f} "
                f"| {megabytes / sum(mine):,.0f} MB/s | {megabytes / sum(other):,.0f} MB/s "
                f"| {_peak(ours)} | {_peak(theirs)} |"
            )
    for transport, peak in server.items():
        click.echo(f"\nThe server by {transport}: {peak / 2**20:,.0f} MiB at most.")


def _peak(measured: Measured) -> str:
    return f"{measured.resident / 2**20:,.0f} MiB ({measured.proportional / 2**20:,.0f})"


if __name__ == "__main__":
    main()
