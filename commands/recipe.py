"""`fluxconv recipe`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fluxconv.commands.output import Output, output_options


@click.group("recipe")
def command() -> None:
    """Recipes: a whole release as one file, which `fluxconv run` carries out."""


@command.command("schema")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write it to; one that exists is replaced. [stdout]",
)
@output_options
def schema(out: Output, output: Path | None) -> None:
    """Print the JSON Schema of recipes, so that editors complete and check them."""
    from fluxconv.recipes.schema import recipe_schema, write_schema

    found = recipe_schema()
    if output is None:
        out.line(json.dumps(found, indent=2, ensure_ascii=False))
        return
    write_schema(output)
    out.result({"schema": str(output)}, lambda: out.line(str(output)))


@command.command("init")
@click.argument(
    "file", type=click.Path(path_type=Path), default=Path("release.yaml"), metavar="[FILE]"
)
@click.option(
    "--checkpoint",
    metavar="CHECKPOINT",
    help="What to convert: a folder or file, or OWNER/NAME on the Hub.",
)
@output_options
def init(out: Output, file: Path, checkpoint: str | None) -> None:
    """Write a recipe to begin with, with comments, into FILE (default: release.yaml).

    Beside it the schema for editors is put, recipe.schema.json, if there is none.
    """
    from fluxconv.recipes.starter import write_starter

    written = write_starter(file, checkpoint)
    out.result(
        {"recipe": str(file), "files": [str(path) for path in written]},
        lambda: out.line("\n".join(map(str, written))),
    )
    out.note(f"next: fluxconv recipe check {file}")


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@output_options
def check(out: Output, file: Path) -> None:
    """Check everything about the recipe FILE that can be known without work, and show what it
    would make, to the byte.

    Nothing is written, and of checkpoints on the Hub only headers are read. All problems are told
    at once, each with its line.
    """
    from fluxconv.commands.recipe_table import checked_data, show_checked
    from fluxconv.recipes.checking import check_file

    with out.progress() as progress:
        checked = check_file(file, progress=progress)
    checked.require()
    out.result(checked_data(checked), lambda: show_checked(out, checked))
