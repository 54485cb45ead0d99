"""Hostile safetensors files against `read_header`, with the official library as the judge.

    python benchmarks/fuzz_safetensors.py [--cases 100000] [--seed 0] [--no-heavy]

Each case is a sound file, mutated: in its header's structure, in its bytes, or in both.
`read_header` must refuse it with one printable sentence, or list exactly what
`safetensors.safe_open` lists; what the library refuses, it must refuse. Then headers near the
limits, each built to cost much time or memory, in a process of their own. Prints one summary; exits
1 on any finding, whose file is kept in the folder `--keep`.
"""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from hostile_safetensors import case, heavy
from safetensors import SafetensorError, safe_open

from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.safetensors_header import read_header

HANG_SECONDS = 30  # by the clock: the machine may be busy with other work
CASE_SECONDS = 1.0  # of the processor
HEAVY_SECONDS = 10.0
MEMORY = 1 << 30  # beside the interpreter and the libraries


@dataclass
class Tally:
    """What came of the cases: refusals by reason, and those of them that the library takes."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    stricter: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    findings: int = 0


def judged(file: Path, tally: Tally, seconds: float = CASE_SECONDS) -> str | None:
    """What is wrong with how `read_header` takes this file; None if nothing."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    try:
        ours, reason = _ours(file)
    except Exception as error:  # noqa: BLE001 - any other error is the finding
        return f"raised {type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    spent = time.process_time() - began
    tally.slowest = max(tally.slowest, spent)
    if spent > seconds:
        return f"took {spent:.1f} s"
    theirs = _theirs(file)
    if ours is None:
        words = re.sub(r"\d+", "N", re.sub(r"'[^']*'", "'…'", reason))
        tally.refused[words] += 1
        tally.stricter[words] += theirs is not None
        fit = reason.isprintable() and len(reason) < 400
        return None if fit else f"said {reason!r}"
    tally.accepted += 1
    if ours != theirs:
        return f"listed {ours!r:.300} where the library has {theirs!r:.300}"
    return None


def _ours(file: Path) -> tuple[Any, str]:
    try:
        header = read_header(file)
    except MalformedFile as error:
        return None, str(error).removeprefix(f"{file}: ")
    tensors = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in header.tensors}
    return (tensors, dict(header.metadata)), ""


def _theirs(file: Path) -> Any:
    try:
        with safe_open(file, "numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            tensors = {name: (one.get_dtype(), one.get_shape()) for name, one in slices.items()}
            return tensors, opened.metadata() or {}
    except (SafetensorError, OSError):
        return None


def _status(key: str) -> int:
    """Bytes of this process alone: `VmSize`, or `VmHWM` for the peak of its resident memory."""
    # Not getrusage: a child's figure begins with its parent's.
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0]) * 1024


def _hung(*_: object) -> None:
    raise TimeoutError(f"nothing came of it in {HANG_SECONDS} s")


def one(file: Path) -> None:
    """Take one heavy file with little memory; prints seconds, bytes, and what is wrong with it."""
    before, limit = _status("VmHWM"), _status("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    began = time.process_time()
    try:
        said = _ours(file)[1] or "accepted"
        wrong = None
    except Exception as error:  # noqa: BLE001 - any other error is the finding
        said, wrong = "", f"raised {type(error).__name__}: {str(error)[:200]}"
    spent = time.process_time() - began
    if spent > HEAVY_SECONDS:
        wrong = f"took {spent:.1f} s"
    click.echo(json.dumps([spent, _status("VmHWM") - before, said, wrong]))


@click.command(help=__doc__)
@click.option("--cases", default=100_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--heavy/--no-heavy", "with_heavy", default=True, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), default=Path("fuzz-findings"))
@click.option("--one", "single", type=click.Path(path_type=Path), hidden=True)
def main(cases: int, seed: int, with_heavy: bool, keep: Path, single: Path | None) -> None:
    if single is not None:
        one(single)
        return
    signal.signal(signal.SIGALRM, _hung)
    began, before, tally = time.perf_counter(), _status("VmHWM"), Tally()
    # In memory: a disk's file system may wait for the disk at every file that is written again.
    memory_folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory_folder) as folder:
        file = Path(folder) / "case.safetensors"

        def note(label: str, wrong: str | None) -> None:
            if wrong is not None:
                tally.findings += 1
                keep.mkdir(parents=True, exist_ok=True)
                kept = keep / f"{label.replace(' ', '-')}.safetensors"
                kept.write_bytes(file.read_bytes())
                click.echo(f"FINDING: {wrong}; see {kept}")

        for number in range(cases):
            file.write_bytes(case(random.Random(f"{seed}:{number}")))
            note(f"{seed}-{number}", judged(file, tally))
        _summary(tally, f"{cases} cases, seed {seed}, {time.perf_counter() - began:.0f} s")
        click.echo(f"memory grew by {(_status('VmHWM') - before) >> 20} MiB")
        if with_heavy:
            click.echo(f"\n{'seconds':>8}{'MiB':>6}  heavy headers")
        for label, build in heavy() if with_heavy else ():
            file.write_bytes(build())
            command = [sys.executable, __file__, "--one", str(file)]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=10 * HANG_SECONDS
            )
            spent, memory, said, wrong = json.loads(done.stdout or "null") or (
                0,
                0,
                "",
                done.stderr,
            )
            if said == "accepted" and _theirs(file) is None:
                wrong = "accepted what the library refuses"
            click.echo(f"{spent:>8.2f}{memory >> 20:>6}  {label}: {said[:100]}")
            note(label, wrong)
    click.echo(f"findings: {tally.findings}")
    sys.exit(1 if tally.findings else 0)


def _summary(tally: Tally, title: str) -> None:
    click.echo(f"{title}: {tally.accepted} accepted, {tally.refused.total()} refused")
    click.echo(f"{'refused':>8}  taken by the library")
    for words, count in tally.refused.most_common():
        click.echo(f"{count:>8}{tally.stricter[words]:>8}  {words}")
    click.echo(f"slowest case: {tally.slowest * 1e3:.1f} ms of the processor")


if __name__ == "__main__":
    main()
