"""Memory and time of the source and of every backend, in every mode of `fluxconv benchmark`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.backends import all_backends, missing
from fluxconv.converters.modes import MODES
from fluxconv.validators import load_settings
from fluxconv.validators.benchmark import benchmark
from fluxconv.validators.results import Performance
from gpu_checks.setting import TESTS, TINY_FLUX, Setting, first_line, heading, row

sys.path.insert(0, str(TESTS / "checkpoints"))
import synthetic

#: Blocks of the transformer of FLUX.1's width by `--small`.
BLOCKS = {False: (4, 8), True: (1, 1)}
SMALL_MODES = ("plain", "offload-model")


@click.command("modes")
@click.option("--backend", "chosen", multiple=True, help="[all]")
@click.option("--mode", "modes", multiple=True, type=click.Choice(list(MODES)), help="[all]")
@click.option("--size", default=512, show_default=True, help="Pixels of a side.")
@click.pass_obj
def modes(setting: Setting, chosen: tuple[str, ...], modes: tuple[str, ...], size: int) -> None:
    """Measure the tiny Flux, and one with a transformer of FLUX.1's width, in each mode."""
    here = [n for n, each in all_backends().items() if missing(each, setting.device) is None]
    names = chosen or (here[::6] if setting.small else here)
    ways = modes or (SMALL_MODES if setting.small else tuple(MODES))
    failed = False
    with setting.work() as work:
        wide = wide_flux(work, *BLOCKS[setting.small])
        for title, source, pixels in (
            ("The tiny Flux", open_checkpoint(TINY_FLUX), 64),
            ("A transformer of FLUX.1's width", wide, 64 if setting.small else size),
        ):
            click.echo(f"\n{title}, {pixels} x {pixels} pixels\n")
            heading(
                *("model", "mode", "memory after loading", "peak memory"),
                *("seconds a picture", "compile seconds", "its library runs", "why not"),
            )
            failed |= measured(source, "source", ways, pixels, setting.device)
            for name in names:
                (variant,) = quantize(source, [name], work / "out", device=setting.device)
                failed |= measured(variant, f"`{name}`", ways, pixels, setting.device)
    sys.exit(int(failed))


def wide_flux(work: Path, double: int, single: int) -> Checkpoint:
    """The tiny Flux with a synthetic transformer of FLUX.1's width, which GGUF loaders take."""
    config = synthetic.transformer_config(
        double=double, single=single, joint=256, pooled=64, in_channels=16
    )
    place = shutil.copytree(TINY_FLUX, work / "wide")
    shutil.rmtree(place / "transformer")
    synthetic.write_transformer(place, config)
    return open_checkpoint(place)


def measured(
    model: Checkpoint | Variant, title: str, ways: tuple[str, ...], pixels: int, device: str
) -> bool:
    """Print the rows of a model; whether any mode failed that should work on `device`."""
    settings = load_settings(model.root, {"steps": 4, "height": pixels, "width": pixels})
    failed = False
    for way in ways:
        (found,) = benchmark([model], settings, device=device, modes=[way], pictures=2).models
        (performance,) = found.performance
        row(title, way, *figures(performance))
        failed |= bool(performance.why) and MODES[way].cannot_run(device) is None
    return failed


def figures(found: Performance) -> tuple[str, ...]:
    """The cells of one mode."""
    if found.memory_loaded is None or found.memory_peak is None or found.seconds is None:
        return (*("",) * 5, first_line(found.why))
    native = [name for name, how in found.execution.items() if how.mode == "native"]
    return (
        f"{found.memory_loaded / 2**20:,.0f} MiB",
        f"{found.memory_peak / 2**20:,.0f} MiB",
        f"{found.seconds:.2f}",
        "" if found.compile_seconds is None else f"{found.compile_seconds:.1f}",
        ", ".join(native),
        "",
    )
