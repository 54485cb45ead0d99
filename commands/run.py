"""`fluxconv run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fluxconv.commands.output import Output, output_options, size
from fluxconv.converters.errors import FluxconvError, UsageError

if TYPE_CHECKING:
    from fluxconv.commands.live import Lines
    from fluxconv.recipes.checked import Checked
    from fluxconv.recipes.result import RunResult


@click.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check the recipe and show what would be done.")
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    help="What does the work: processes here, or a Ray cluster [as the recipe says].",
)
@click.option("--address", help="Where the Ray cluster is, or auto [as the recipe says].")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="How many at a time [one for each GPU, or as many as memory and cores allow].",
)
@click.option(
    "--parts",
    type=click.IntRange(min=1),
    help="Split the pass over each checkpoint into so many parts [1].",
)
@click.option("--strict", is_flag=True, help="Publish all or nothing.")
@click.option("--no-push", is_flag=True, help="Publish nothing.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the variants [as the recipe says].",
)
@output_options
def command(
    out: Output,
    recipe: Path,
    dry_run: bool,
    executor: Literal["local", "ray"] | None,
    address: str | None,
    processes: int | None,
    parts: int | None,
    strict: bool,
    no_push: bool,
    output: Path | None,
) -> None:
    """Make a whole release: quantize, validate, measure, write cards, publish.

    What is done stays done: the same command goes on after any end, and a changed recipe does anew
    only what depends on the change. What fails does not stop the rest.
    """
    from fluxconv.recipes.checking import check
    from fluxconv.recipes.reading import read_leniently
    from fluxconv.recipes.running import placed, run
    from fluxconv.validators.nursery import NURSERY

    file = placed(read_leniently(recipe), output, kind=executor, parts=parts)
    if address is not None and file.recipe.executor.kind != "ray":
        raise UsageError("--address is that of a Ray cluster; give --executor ray with it")
    if not dry_run and file.recipe.executor.kind == "local":
        NURSERY.start()  # it imports the libraries while the recipe is checked
    with out.progress() as progress:
        checked = check(file, at_once=not (dry_run or no_push), progress=progress)
    checked.require()
    if dry_run:
        _preview(out, checked, parts=parts, publish=not no_push, strict=strict)
        return
    for remark in checked.remarks:
        out.note(remark)
    with _watcher(out) as watcher:
        done = run(
            checked,
            executor=executor,
            address=address,
            processes=processes,
            parts=parts,
            publish=not no_push,
            strict=strict,
            watcher=watcher,
        )
    failed = done.error
    _show(out, done, failed)
    if failed is not None:
        raise failed


def _watcher(out: Output) -> Lines:
    from fluxconv.commands.live import Lines, LiveTable

    if sys.stderr.isatty() and not out.quiet:
        return LiveTable()
    return Lines(shown=not out.quiet)


def _preview(out: Output, checked: Checked, **how: Any) -> None:
    from fluxconv.commands.recipe_table import checked_data, show_checked
    from fluxconv.recipes.running import preview
    from fluxconv.recipes.standing import node_json

    found = preview(checked, **how)
    rows = [
        (
            node.id,
            f"{marker.state} already" if marker else "to do" if certain else "to be looked at",
            "alone" if node.resources.alone else "",
            size(node.resources.memory) if node.resources.memory else "",
            ", ".join(dict.fromkeys(id.partition(".")[0] for id in node.before)),
        )
        for node, marker, certain in found
    ]
    data = {
        **checked_data(checked),
        "nodes": [
            {**node_json(marker), "to_do": False}
            if marker
            else {"id": node.id, "to_do": True if certain else None}
            for node, marker, certain in found
        ],
    }

    def show() -> None:
        show_checked(out, checked)
        out.table("", ("node", "state", "", ">memory", "after"), rows)

    out.result(data, show)


def _show(out: Output, done: RunResult, failed: FluxconvError | None) -> None:
    from fluxconv.recipes.building import PUBLISHER
    from fluxconv.recipes.standing import node_json

    now = set(done.done_now)
    publisher = done.markers.get(PUBLISHER)
    # What an earlier run published says nothing of this release.
    published = publisher.result if publisher and publisher.state == "done" else None
    data = {
        "output": str(done.output),
        "nodes": [{**node_json(m), "now": m.id in now} for m in done.markers.values()],
        "pages": list(done.pages),
        "published": published,
        "still_published": dict(done.still_published),
    }

    def show() -> None:
        out.table("", COLUMNS, [row(marker, marker.id in now) for marker in done.markers.values()])
        for page in done.pages:
            out.line(f"pictures and figures: {page}")
        for each in published["repositories"] if published else ():
            out.line(f"published: {each['url']}")
        if published and published["collection"]:
            collection = published["collection"]
            out.line(f"collection {collection['title']}: {collection['url']}")

    out.result(data, show, failed)
    for marker in (*done.failed, *done.left_out):
        out.note(f"{marker.id}: {marker.state}: {marker.why}")
    for name, url in done.still_published.items():
        out.note(f"{name}: not published by this run; what an earlier one published stays at {url}")
    before = sum(marker.state == "done" and id not in now for id, marker in done.markers.items())
    undone = sum(marker.state != "done" for marker in done.markers.values())
    out.note(f"{done.output}: {len(now)} done now, {before} before, {undone} not done")


#: Of a table of nodes; see `row`.
COLUMNS = ("node", "state", ">seconds", ">peak memory", "")


def row(marker: Any, is_new: bool = True) -> tuple[str, ...]:
    """A node as a row of a table."""
    return (
        marker.id,
        marker.state,
        "" if marker.seconds is None else f"{marker.seconds:.1f}",
        "" if marker.peak_memory is None else size(marker.peak_memory),
        "" if is_new else "before" if marker.state == "done" else "",
    )
