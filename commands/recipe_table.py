"""A checked recipe for people and as JSON: what would be made, where, and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxconv.commands.output import Output, size

if TYPE_CHECKING:
    from fluxconv.recipes.checked import Checked, CheckedCheckpoint, CheckedVariant


def checked_data(checked: Checked) -> dict[str, Any]:
    """The whole of it, plain. Problems are not among it: they are raised."""
    totals = checked.totals
    return {
        "recipe": checked.file.name,
        "output": str(checked.output),
        "device": checked.device,
        "checkpoints": [_checkpoint(each) for each in checked.checkpoints],
        "totals": {
            "variants": totals.variants,
            "to_write": totals.to_write,
            "to_download": totals.to_download,
            "pass_memory": totals.pass_memory,
            "draw_memory": totals.draw_memory,
            "disk_free": totals.disk_free,
            "memory_free": totals.memory_free,
        },
        "remarks": list(checked.remarks),
    }


def show_checked(out: Output, checked: Checked) -> None:
    """A table of the variants, what they take together, and the remarks. Problems are not among
    it: they are raised."""
    for each in checked.checkpoints:
        out.table(
            _title(each),
            ("variant", ">on disk", ">bits/weight", ">memory to encode", "published as"),
            [_row(variant) for variant in each.variants],
        )
    for line in _lines(checked):
        out.line(line)
    for remark in checked.remarks:
        out.line(f"- {remark}")


def _title(checkpoint: CheckedCheckpoint) -> str:
    revision = f" at {checkpoint.revision[:12]}" if checkpoint.revision else ""
    licence = f", {checkpoint.licence}" if checkpoint.licence else ""
    return f"{checkpoint.row.id}{revision}{licence}"


def _row(variant: CheckedVariant) -> tuple[str, ...]:
    plan = variant.plan
    figures = (
        (size(plan.nbytes), f"{plan.bits_per_weight:.2f}", size(plan.peak_memory))
        if plan
        else ("?", "?", "?")
    )
    return (variant.name, *figures, variant.repository or "")


def _lines(checked: Checked) -> list[str]:
    """What it takes as a whole, as far as it is known."""
    totals, recipe = checked.totals, checked.recipe
    free = "" if totals.disk_free is None else f", {size(totals.disk_free)} are free"
    return [
        f"output     {checked.output}",
        *(
            [f"variants   {size(totals.variants)} ({totals.variants:,} bytes)"]
            if totals.variants is not None
            else []
        ),
        *([f"to write   {size(totals.to_write)}{free}"] if totals.to_write is not None else []),
        *([f"to fetch   {size(totals.to_download)} from the Hub"] if totals.to_download else []),
        *(
            [f"memory     {size(totals.pass_memory)} for the widest pass, beside the libraries"]
            if totals.pass_memory
            else []
        ),
        *(
            [
                f"           {size(totals.draw_memory)} to draw with the source, beside them; "
                f"{size(totals.memory_free)} are free"
            ]
            if totals.draw_memory
            else []
        ),
        f"done by    {recipe.executor.kind}, on {checked.device}",
        *([f"publish to {_publication(checked)}"] if recipe.publication else []),
    ]


def _publication(checked: Checked) -> str:
    """Where it goes, and who will see it."""
    from fluxconv.hub.session import default_endpoint

    part = checked.recipe.publication
    assert part is not None
    seen = part.visibility or "public where new, else as it is"
    gated = {"off": "not gated", None: "gated as the source is"}.get(
        part.gated, f"gated ({part.gated})"
    )
    collection = f', collection "{part.collection}"' if part.collection else ""
    return f"{default_endpoint()}/{part.namespace}, {seen}, {gated}{collection}"


def _checkpoint(checkpoint: CheckedCheckpoint) -> dict[str, Any]:
    return {
        "id": checkpoint.row.id,
        "name": checkpoint.name,
        "revision": checkpoint.revision,
        "licence": checkpoint.licence,
        "download_bytes": checkpoint.download_bytes,
        "settings": checkpoint.settings.model_dump(mode="json") if checkpoint.settings else None,
        "variants": [_variant(each) for each in checkpoint.variants],
    }


def _variant(variant: CheckedVariant) -> dict[str, Any]:
    plan = variant.plan
    return {
        "name": variant.name,
        "backend": variant.made_by.backend.name,
        "options": variant.made_by.backend.options.changed(),
        "lacks": variant.lacks,
        "repository": variant.repository,
        "bytes": plan.nbytes if plan else None,
        "bits_per_weight": round(plan.bits_per_weight, 4) if plan else None,
        "peak_memory": plan.peak_memory if plan else None,
    }
