"""Hostile GGUF files against `read_gguf_header`, with gguf-py's reader as the judge.

    python benchmarks/fuzz_gguf.py [--cases 500000] [--seed 0] [--no-heavy]

Each case is a sound file, mutated: a field, the order of fields, or bytes. `read_gguf_header` must
take every sound one. It must refuse a bad one with one printable sentence, or list tensors that lie
inside the file, share no byte, and are what gguf-py lists. Cases run in child processes with little
memory, so one that costs too much is a finding and not the end. Then headers built to cost time or
memory. Prints one summary; exits 1 on any finding, whose file is kept in the folder `--keep`.
"""

from __future__ import annotations

import itertools
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
from pathlib import Path
from typing import Any

import click
from gguf import GGUFReader
from hostile_gguf import case, heavy

from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.gguf.fields import GgufArray
from fluxconv.converters.gguf.reader import GgufHeader, read_gguf_header

CASES_A_CHILD = 5000
CASE_SECONDS = 1.0  # of the processor, as all below
JUDGE_SECONDS = 0.1  # gguf-py counts its way through arrays that are not there
HEAVY_SECONDS = 10.0
MEMORY = 1 << 29  # beside the interpreter and the libraries
GROWTH = 1 << 26  # of a child's memory, over all cases: they are small
#: What gguf-py refuses and is sound, by its error: a scalar in bfloat16 or in bytes, and a key that
#: it has for itself.
KNOWN = (r"IndexError: tuple index out of range", r"KeyError: 'Duplicate GGUF\.")

ITS_OWN = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")  # keys of gguf-py's making
#: What is counted by its words: refusals, those of them that gguf-py takes, what it refuses and we
#: take, and arrays whose elements are refused when they are read.
KINDS = ("refused", "stricter", "laxer", "late")


class TooLong(BaseException):
    """The time of the processor is used up; nobody's `except Exception` takes it."""


def ours(file: Path) -> tuple[GgufHeader | None, str]:
    """The header, or the sentence with which it was refused."""
    try:
        return read_gguf_header(file), ""
    except MalformedFile as error:
        return None, str(error).removeprefix(f"{file}: ")


def theirs(file: Path, seconds: float) -> tuple[Any, str]:
    """What gguf-py lists, or its error."""
    try:
        return in_time(file, seconds)
    except TooLong:  # here, as it may come at any moment until the timer is off
        return None, "no answer"


def in_time(file: Path, seconds: float) -> tuple[Any, str]:
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reader = GGUFReader(file)
        tensors = {
            t.name: (t.tensor_type.name, t.shape.tolist()[::-1], int(t.data_offset), int(t.n_bytes))
            for t in reader.tensors
        }
        fields = {k: f.contents() for k, f in reader.fields.items() if k not in ITS_OWN}
        return (dict(sorted(tensors.items())), fields), ""
    except Exception as error:  # noqa: BLE001 - it raises whatever comes
        return None, f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def as_theirs(header: GgufHeader) -> Any:
    tensors = {t.name: (t.type_name, list(t.shape), t.offset, t.nbytes) for t in header.tensors}
    fields = {
        key: list(value) if isinstance(value, GgufArray) else value
        for key, value in header.metadata.items()
    }
    return dict(sorted(tensors.items())), fields


def unsound(header: GgufHeader) -> str | None:
    """What is wrong with a header that was taken, told without the reader's own code."""
    taken = sorted((t.offset, t.offset + t.nbytes) for t in header.tensors)
    if any(before[1] > after[0] for before, after in itertools.pairwise(taken)):
        return "took tensors that overlap"
    if any(end > header.file.stat().st_size for _, end in taken):
        return "took a tensor outside the file"
    names = [t.name for t in header.tensors]
    if len(set(names)) < len(names):
        return "took a name twice"
    if not all(name and name.isprintable() and len(name) < 128 for name in names):
        return "took a name that is none"
    if "" in header.metadata:
        return "took a key of no name"
    if any(len(t.shape) > 4 for t in header.tensors):
        return "took a tensor of more than 4 dimensions"
    alignment = header.metadata.get("general.alignment", 32)
    if any(t.offset % alignment for t in header.tensors):
        return "took a tensor that is not aligned"
    return None


def judged(
    file: Path, found: tuple[GgufHeader | None, str], is_sound: bool, tally: dict[str, Any]
) -> str | None:
    """What is wrong with what `read_gguf_header` made of this file; None if nothing."""
    header, reason = found
    if header is None:
        words = general(reason)
        tally["refused"][words] += 1
        answer, _ = theirs(file, JUDGE_SECONDS)
        tally["stricter"][words] += answer is not None
        if is_sound:
            return f"refused a sound file: {reason}"
        return None if reason.isprintable() and len(reason) < 400 else f"said {reason!r}"
    tally["accepted"] += 1
    if any(tensor.type_name == "Q8_1" for tensor in header.tensors):
        tally["laxer"]["or has other sizes for: Q8_1"] += 1
        return unsound(header)
    answer, error = theirs(file, 10 * CASE_SECONDS)
    if answer is None and any(re.match(known, error) for known in KNOWN):
        tally["laxer"][f"with {error[:60]}"] += 1
        return unsound(header)
    try:
        listed = as_theirs(header)
    except MalformedFile as late:  # elements of arrays are checked when they are read
        tally["late"][general(str(late).removeprefix(f"{file}: "))] += 1
        return unsound(header)
    if repr(listed) != repr(answer):  # NaN is not NaN
        return f"listed {listed!r:.300} where gguf-py has {answer!r:.300} {error}"
    return unsound(header)


def general(sentence: str) -> str:
    """The sentence without the names and numbers of its case."""
    named = re.sub(
        r"blocks of \d+, as \w+", "blocks of N, as T", re.sub(r"'[^']*'", "'…'", sentence)
    )
    return re.sub(r"\b\d+", "N", named)


def status(key: str) -> int:
    """Bytes of this process: `VmSize`, or `VmHWM` for the peak of its resident memory."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0]) * 1024


def with_little_memory() -> None:
    limit = status("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def child(seed: int, first: int, count: int, folder: Path) -> None:
    """Take some cases, first all by our reader alone; prints its tally as JSON."""
    tally: dict[str, Any] = {"accepted": 0, "slowest": 0.0, "findings": []}
    tally |= {key: Counter() for key in KINDS}
    file, found = folder / "case.gguf", {}

    def finding(number: int, wrong: str | None) -> None:
        if wrong is not None:
            tally["findings"].append([number, wrong])

    with_little_memory()
    before = status("VmHWM")
    for number in range(first, first + count):
        file.write_bytes(case(random.Random(f"{seed}:{number}"))[0])
        (folder / "number").write_text(str(number))
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
        try:
            found[number] = ours(file)
        except (Exception, TooLong) as error:  # noqa: BLE001 - any other error is the finding
            finding(number, f"raised {type(error).__name__}: {str(error)[:200]}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        tally["slowest"] = max(tally["slowest"], time.process_time() - began)
    tally["growth"] = status("VmHWM") - before
    if tally["growth"] > GROWTH:
        finding(first, f"some of {count} cases took {tally['growth'] >> 20} MiB")
    for number, answer in found.items():
        raw, is_sound = case(random.Random(f"{seed}:{number}"))
        file.write_bytes(raw)
        finding(number, judged(file, answer, is_sound, tally))
    click.echo(json.dumps(tally))


def one(file: Path) -> None:
    """Take one heavy file; prints seconds, bytes, and what is wrong with it."""
    before = status("VmHWM")
    with_little_memory()
    began = time.process_time()
    try:
        said, wrong = ours(file)[1] or "accepted", None
    except Exception as error:  # noqa: BLE001 - any other error is the finding
        said, wrong = "", f"raised {type(error).__name__}: {str(error)[:200]}"
    spent = time.process_time() - began
    if spent > HEAVY_SECONDS:
        wrong = f"took {spent:.1f} s"
    click.echo(json.dumps([spent, status("VmHWM") - before, said, wrong]))


def too_long(*_: object) -> None:
    raise TooLong


@click.command(help=__doc__)
@click.option("--cases", default=500_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--heavy/--no-heavy", "with_heavy", default=True, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), default=Path("fuzz-findings"))
@click.option("--child", "part", nargs=2, type=int, hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--one", "single", type=click.Path(path_type=Path), hidden=True)
def main(
    cases: int,
    seed: int,
    with_heavy: bool,
    keep: Path,
    part: tuple[int, int] | None,
    folder: Path | None,
    single: Path | None,
) -> None:
    signal.signal(signal.SIGPROF, too_long)
    if single is not None:
        one(single)
        return
    if part is not None:
        assert folder is not None
        child(seed, *part, folder)
        return
    began, findings = time.perf_counter(), 0

    def note(label: str, wrong: str, raw: bytes) -> None:
        nonlocal findings
        findings += 1
        keep.mkdir(parents=True, exist_ok=True)
        kept = keep / f"{label.replace(' ', '-')}.gguf"
        kept.write_bytes(raw)
        click.echo(f"FINDING: {wrong}; see {kept}")

    totals: dict[str, Any] = {"accepted": 0, "slowest": 0.0, "growth": 0}
    totals |= {key: Counter() for key in KINDS}
    # In memory: a disk's file system may wait for the disk at every file that is written again.
    memory_folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory_folder) as name:
        work = Path(name)
        words = [sys.executable, __file__, "--seed", str(seed), "--folder", name]
        for first in range(0, cases, CASES_A_CHILD):
            count = str(min(CASES_A_CHILD, cases - first))
            done = subprocess.run(
                [*words, "--child", str(first), count], capture_output=True, text=True
            )
            if done.returncode:
                last = (work / "number").read_text()
                said = done.stderr.strip().splitlines()[-1:]
                raw = (work / "case.gguf").read_bytes()
                note(f"{seed}-{last}", f"the process ended with {done.returncode}: {said}", raw)
                continue
            tally = json.loads(done.stdout)
            for number, wrong in tally["findings"]:
                note(f"{seed}-{number}", wrong, case(random.Random(f"{seed}:{number}"))[0])
            totals["accepted"] += tally["accepted"]
            for key in ("slowest", "growth"):
                totals[key] = max(totals[key], tally[key])
            for key in KINDS:
                totals[key].update(tally[key])
        summary(totals, f"{cases} cases, seed {seed}, {time.perf_counter() - began:.0f} s")
        if with_heavy:
            click.echo(f"\n{'seconds':>8}{'MiB':>6}  heavy headers")
        file = work / "heavy.gguf"
        for label, build in heavy() if with_heavy else ():
            file.write_bytes(build())
            command = [sys.executable, __file__, "--one", str(file)]
            done = subprocess.run(command, capture_output=True, text=True)
            result = json.loads(done.stdout or "null") or (0, 0, "", done.stderr or "no answer")
            spent, memory, said, wrong = result
            click.echo(f"{spent:>8.2f}{memory >> 20:>6}  {label}: {said[:100]}")
            if wrong is not None:
                note(label, wrong, b"")
    click.echo(f"findings: {findings}")
    sys.exit(1 if findings else 0)


def summary(totals: dict[str, Any], title: str) -> None:
    refused, stricter = totals["refused"], totals["stricter"]
    click.echo(f"{title}: {totals['accepted']} accepted, {refused.total()} refused")
    for error, count in totals["laxer"].most_common():
        click.echo(f"{count:>8} of the accepted gguf-py refuses, {error}")
    for words, count in totals["late"].most_common():
        click.echo(f"{count:>8} of the accepted are refused when an array is read: {words}")
    click.echo(f"{'refused':>8}  taken by gguf-py")
    for words, count in refused.most_common():
        click.echo(f"{count:>8}{stricter[words]:>8}  {words}")
    click.echo(f"slowest case: {totals['slowest'] * 1e3:.1f} ms of the processor")
    click.echo(f"memory of a child grew by {totals['growth'] >> 20} MiB at most")


if __name__ == "__main__":
    main()
