"""`fluxconv status`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxconv.commands.output import Output, output_options
from fluxconv.commands.run import COLUMNS, row

if TYPE_CHECKING:
    from fluxconv.recipes.standing import RunStatus


@click.command("status")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@output_options
def command(out: Output, run: Path) -> None:
    """Show a run, from what it left on the disk: RUN is the folder it writes to, or its recipe."""
    from fluxconv.recipes.standing import status

    found = status(_folder(run))

    def show() -> None:
        out.table("", COLUMNS, [row(marker) for marker in found.nodes])
        for marker in found.nodes:
            if marker.why:
                out.line(f"{marker.id}: {marker.why}")
        out.line(_told(found))

    out.result(found.to_json(), show)


def _folder(run: Path) -> Path:
    if run.is_dir():
        return run
    from fluxconv.recipes.executors.scratch import is_url
    from fluxconv.recipes.markers import home_of
    from fluxconv.recipes.reading import read_recipe

    file = read_recipe(run)
    output = file.recipe.output
    return home_of(output if is_url(output) else file.path(output))


def _told(found: RunStatus) -> str:
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.started))
    took = "" if found.seconds is None else f", {found.seconds:.0f} s"
    ways = {
        "died": "; run the same recipe again to go on",
        "stopped": "; run the same recipe again to do the rest",
        "failed": "; look at what failed, and change the recipe or its thresholds",
    }
    return (
        f"{found.recipe}: {found.state}{took}, begun {began} by process {found.pid} on "
        f"{found.host}{ways.get(found.state, '')}"
    )
