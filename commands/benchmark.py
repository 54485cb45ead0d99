"""`fluxconv benchmark`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxconv.commands.options import (
    base_option,
    choose_device,
    device_option,
    drawing_options,
    variants_argument,
)
from fluxconv.commands.output import Output, output_options, size
from fluxconv.converters.errors import BadInput, CheckFailed
from fluxconv.converters.modes import MODES, PLAIN

if TYPE_CHECKING:
    from fluxconv.validators.benchmark import Benchmark
    from fluxconv.validators.results import Performance


@click.command("benchmark")
@variants_argument
@click.option(
    "--reference", metavar="CHECKPOINT", help="Measure what they were made from, too, first."
)
@base_option
@click.option(
    "--mode",
    "modes",
    type=click.Choice(list(MODES)),
    multiple=True,
    default=[PLAIN],
    show_default=True,
    help="How to run; give it once for each.",
)
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Pictures that count, after one that does not.",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="Text file with one prompt a line."
)
@click.option("--seed", "seeds", type=int, multiple=True, help="Seed; give it once for each.")
@drawing_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file to write the figures to, as --json prints them; one that exists is replaced.",
)
@device_option
@output_options
def command(
    out: Output,
    variants: tuple[str, ...],
    reference: str | None,
    base: str | None,
    modes: tuple[str, ...],
    pictures: int,
    prompts: Path | None,
    seeds: tuple[int, ...],
    output: Path | None,
    device: str,
    **settings: int | float | None,
) -> None:
    """Measure memory and time of variants, each mode in a process of its own."""
    from fluxconv.converters import open_variant
    from fluxconv.hub.sources import open_source
    from fluxconv.validators import load_settings
    from fluxconv.validators.benchmark import benchmark

    opened = [open_variant(path) for path in variants]
    _check_output(output)
    with out.progress() as progress:
        source = None
        if reference is not None:
            source = open_source(reference, base=base, allow_requantize=True, progress=progress)
        overrides = {**settings, "seeds": seeds or None}
        found = benchmark(
            [source, *opened] if source else opened,
            load_settings((source or opened[0]).root, overrides, prompts),
            device=choose_device(device),
            modes=tuple(dict.fromkeys(modes)),
            pictures=pictures,
            progress=progress,
        )
    data = found.model_dump(mode="json")
    if output is not None:
        output.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", "utf-8")
    measured = [p for each in found.models for p in each.performance]
    failed = None
    if not any(p.seconds is not None for p in measured):
        failed = CheckFailed(f"nothing could be measured: {measured[0].why}")
    out.result(data, lambda: _table(out, found), failed)
    if failed is not None:
        raise failed


def _check_output(output: Path | None) -> None:
    """Before minutes of measuring, not after."""
    if output is None:
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise BadInput(f"{output.parent}: cannot be written: {error.strerror}") from error


def _table(out: Output, found: Benchmark) -> None:
    out.table(
        "",
        (
            *("model", "mode", ">size", ">memory after loading", ">peak memory"),
            *(">seconds a picture", ">compile seconds", "execution"),
        ),
        [
            (
                model.name,
                performance.mode,
                size(model.size),
                _bytes(performance.memory_loaded),
                _bytes(performance.memory_peak),
                _seconds(performance.seconds, 2),
                _seconds(performance.compile_seconds, 1),
                _execution(performance),
            )
            for model in found.models
            for performance in model.performance
        ],
    )
    for text in _reasons(found):
        out.line(text)
    gpu = f", {found.machine.gpu}" if found.machine.gpu else ""
    out.line(f"{found.machine.processor}, {found.machine.cores} cores{gpu}")


def _reasons(found: Benchmark) -> list[str]:
    """Why modes did not run, each reason once."""
    whys: dict[tuple[str, str], list[str]] = {}
    for model in found.models:
        for performance in model.performance:
            if performance.why:
                whys.setdefault((performance.mode, performance.why), []).append(model.name)
    return [f"{mode} ({', '.join(names)}): {why}" for (mode, why), names in whys.items()]


def _bytes(nbytes: int | None) -> str:
    return "" if nbytes is None else size(nbytes)


def _seconds(seconds: float | None, digits: int) -> str:
    return "" if seconds is None else f"{seconds:.{digits}f}"


def _execution(performance: Performance) -> str:
    if performance.seconds is None:
        return "not run"
    return ", ".join(f"{how.mode} {name}" for name, how in performance.execution.items())
