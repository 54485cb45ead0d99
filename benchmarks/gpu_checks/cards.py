"""The tiny pipeline drawn on a GPU with every variant, and the code of each card run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from PIL import Image

from fluxconv.cards import repository_name
from fluxconv.converters import Variant, open_checkpoint, quantize
from fluxconv.converters.backends import all_backends, missing
from fluxconv.hub import push
from fluxconv.hub.rehearsal import RehearsalHub, running
from gpu_checks.setting import TESTS, TINY_FLUX, Setting, first_line, heading, row

sys.path.insert(0, str(TESTS))
from card_code import run_card_code
from hub_client import USER

AT_ONCE = 6  # processes side by side: most of their time goes into importing
OPTIONS = ("--steps", "3", "--keep-going", "--json")


@click.command("pictures")
@click.pass_obj
def cards(setting: Setting) -> None:
    """`fluxconv validate` and the code of the card, for a variant of each backend."""
    names = [n for n, each in all_backends().items() if missing(each, setting.device) is None]
    names = names[::6] if setting.small else names
    failed = False
    with (
        setting.work() as work,
        running(work / "hub") as hub,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        made = quantize(open_checkpoint(TINY_FLUX), names, work / "out", device=setting.device)
        shares = [made[start::AT_ONCE] for start in range(min(AT_ONCE, len(made)))]
        found = pool.map(lambda share: validated(share, setting.device), shares)
        reports = {name: report for some in found for name, report in some.items()}
        heading("backend", "its library runs", "PSNR", "verdict")
        for variant in made:
            cells = report_cells(reports.get(variant.name))
            row(f"`{variant.manifest.backend}`", *cells)
            failed |= "FAILED" in cells[-1]
        passed = [each for each in made if reports.get(each.name, {}).get("verdict", {})["passed"]]
        push(passed, USER, token=hub.token, endpoint=hub.url)
        # All GGUF variants share a repository, and its card has the code of the first.
        repositories = {repository_name(each): each for each in reversed(passed)}
        click.echo()
        heading("repository", "the code of its card")
        codes = pool.map(lambda name: card_code(repositories[name], hub, work), repositories)
        for name, code in zip(repositories, codes, strict=True):
            row(f"`{name}`", code)
            failed |= "FAILED" in code
    sys.exit(int(failed))


def validated(variants: Sequence[Variant], device: str) -> dict[str, Any]:
    """The report of each variant by its name, from one call of the command."""
    folders = [str(variant.root) for variant in variants]
    command = [sys.executable, "-m", "fluxconv.commands", "validate", *folders, *OPTIONS]
    command += ["--reference", str(TINY_FLUX), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        reports = json.loads(done.stdout)["reports"]
    except (ValueError, KeyError):
        click.echo(f"validate FAILED: {done.stderr[-1000:]}", err=True)
        return {}
    return {report["variant"]: report for report in reports}


def report_cells(report: dict[str, Any] | None) -> tuple[str, str, str]:
    """Which components the library runs as they are, the mean PSNR, the verdict."""
    if report is None:
        return ("", "", "FAILED: no report")
    executions = (report["execution"] or {}).items()
    native = [name for name, how in executions if how["mode"] == "native"]
    pictures = report["pictures"]
    mean = pictures["summary"]["psnr"]["mean"] if pictures else None
    psnr = "" if mean is None else f"{mean:.1f} dB"
    if report["verdict"]["passed"]:
        return (", ".join(native), psnr, "passed")
    why = [check["text"] for check in report["verdict"]["checks"] if not check["passed"]]
    return (", ".join(native), psnr, f"FAILED: {first_line('; '.join(why))}")


def card_code(variant: Variant, hub: RehearsalHub, work: Path) -> str:
    """Run the code of the published card as somebody who has only the card would."""
    text = (variant.root / "README.md").read_text("utf-8")
    if "```python" not in text:
        return text.partition("No code is given here: ")[2].partition(".\n")[0]
    folder = work / "card" / variant.name
    folder.mkdir(parents=True)
    try:
        picture = run_card_code(f"{USER}/{repository_name(variant)}", hub, folder)
        with Image.open(picture) as drawn:
            shades = drawn.convert("L").getcolors() or ()
        return "draws" if len(shades) > 1 else "FAILED: one colour"
    except Exception as error:  # noqa: BLE001 - a cell of the table
        return f"FAILED: {first_line(str(error).strip().rpartition(chr(10))[2])}"
