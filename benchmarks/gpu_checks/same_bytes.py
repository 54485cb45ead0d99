"""Whether a GPU encodes to the bytes that a CPU encodes to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import numpy as np

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.backends import all_backends, missing
from fluxconv.converters.stored import component_entries
from fluxconv.converters.stream import as_bytes
from gpu_checks.setting import SYNTHETIC, TINY_FLUX, Setting, first_line, heading, row

#: A transformer of a third of FLUX.1's width: every kind of weight, in seconds.
NARROW = ("--double", "1", "--single", "1", "--heads", "8", "--width", "1024")


@click.command("bytes")
@click.pass_obj
def same_bytes(setting: Setting) -> None:
    """Each backend's files, made on the GPU and on the CPU."""
    with setting.work() as work:
        script = [sys.executable, str(SYNTHETIC), str(work / "narrow"), *NARROW]
        subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
        sources = {
            "tiny Flux": TINY_FLUX,
            "a third of FLUX.1's width": work / "narrow" / "transformer",
        }
        checkpoints = {name: open_checkpoint(folder) for name, folder in sources.items()}
        heading("backend", *(f"same bytes: {name}" for name in sources))
        failed = False
        for backend in all_backends():
            cells = []
            for index, checkpoint in enumerate(checkpoints.values()):
                place = work / f"{backend}-{index}"
                try:
                    cells.append(compared(backend, checkpoint, place, setting.device))
                except Exception as error:  # noqa: BLE001 - a line of the table
                    cells.append(f"FAILED: {first_line(error)}")
                    failed = True
            row(f"`{backend}`", *cells)
    sys.exit(int(failed))


def compared(backend: str, checkpoint: Checkpoint, place: Path, device: str) -> str:
    """`yes`, or in how many tensors and bytes the two variants differ."""
    if missing(all_backends()[backend], "cpu"):
        return "made on a GPU only"
    here, there = (
        quantize(checkpoint, [backend], place / on / str(i), device=on)[0]
        for i, on in enumerate((device, "cpu"))
    )
    different = differences(here, there)
    if not different:
        return "yes"
    bytes_, total = (sum(pair[i] for pair in different.values()) for i in (0, 1))
    return f"{len(different)} tensors differ, in {bytes_:,} of their {total:,} bytes"


def differences(one: Variant, other: Variant) -> dict[str, tuple[int, int]]:
    """The stored tensors that differ: how many of their bytes do, and how many they have."""
    found = {}
    plans = other.component_plans()
    for part, plan in one.component_plans().items():
        theirs = component_entries(other.root, plans[part])
        for name, entry in component_entries(one.root, plan).items():
            have, want = (np.asarray(as_bytes(each.read())) for each in (entry, theirs[name]))
            # Double quantization stores a text whose length may differ.
            shared = min(len(have), len(want))
            count = np.count_nonzero(have[:shared] != want[:shared]) + abs(len(have) - len(want))
            if count:
                found[f"{part}.{name}"] = (int(count), len(have))
    return found
