"""`fluxconv inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxconv.commands.output import Output, output_options, size
from fluxconv.converters.visible import visible, visible_path

if TYPE_CHECKING:
    from fluxconv.converters.inspection import InspectedComponent, Inspection

_COLUMNS = (
    *("component", "what", "quantization", ">tensors", ">size", ">bits/weight", "stored as"),
)


@click.command("inspect")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--tensors", is_flag=True, help="List every stored tensor, and modules in high precision."
)
@output_options
def command(out: Output, checkpoint: Path, tensors: bool) -> None:
    """Say what CHECKPOINT is: a pipeline, a component, a variant, or weight files of any kind."""
    from fluxconv.converters.inspection import inspect

    found = inspect(checkpoint)
    data = {
        "path": str(found.path),
        "kind": found.kind,
        "variant": found.variant.manifest.model_dump(mode="json") if found.variant else None,
        "components": [_as_json(part, tensors) for part in found.components],
    }
    out.result(data, lambda: _show(out, found, tensors))


def _as_json(part: InspectedComponent, tensors: bool) -> dict[str, Any]:
    bits, recognised = part.bits_per_weight, part.recognised
    return {
        "name": part.name,
        "title": part.title,
        "family": part.family,
        "files": [str(file) for file in part.files],
        "unopened": [str(file) for file in part.unopened],
        "tensors": [[e.name, e.dtype, e.shape, e.nbytes] for e in part.entries]
        if tensors
        else part.tensors,
        "bytes": part.nbytes,
        "dtypes": part.dtypes,
        "weights": part.weights,
        "bits_per_weight": None if bits is None else round(bits, 4),
        "quantization": part.quantization,
        "library": recognised.library if recognised else None,
        "scheme": recognised.scheme if recognised else None,
        "settings": recognised.settings if recognised else {},
        "kept": part.kept if tensors else len(part.kept),
        "notes": part.notes,
    }


def _show(out: Output, found: Inspection, tensors: bool) -> None:
    out.line(f"{visible_path(found.path)}: {found.kind}")
    if found.variant:
        manifest = found.variant.manifest
        revision = f" at {manifest.source.revision}" if manifest.source.revision else ""
        made = f"made with {found.variant.backend.label} from {manifest.source.id}{revision}"
        out.line(visible(f"{made}, on {manifest.device}", 400))
    out.table("", _COLUMNS, [_row(part) for part in found.components])
    for part in found.components:
        if said := "; ".join(_remarks(part)):
            out.line(f"{visible(part.name)}: {said}")
    if tensors:
        kept = [(part.name, module) for part in found.components for module in part.kept]
        if kept:
            out.table("", ("component", "kept in high precision"), kept)
        out.table(
            "",
            ("tensor", "type", "shape", ">bytes"),
            [
                (
                    visible(entry.name, 200),
                    entry.dtype,
                    "x".join(map(str, entry.shape)),
                    f"{entry.nbytes:,}",
                )
                for part in found.components
                for entry in part.entries
            ],
        )


def _row(part: InspectedComponent) -> tuple[str, ...]:
    bits = part.bits_per_weight
    return (
        visible(part.name),
        part.title,
        part.quantization,
        str(part.tensors),
        size(part.nbytes),
        "" if bits is None else f"{bits:.2f}",
        ", ".join(f"{count} {dtype}" for dtype, count in part.dtypes.items()),
    )


def _remarks(part: InspectedComponent) -> list[str]:
    """What the table has no column for."""
    remarks = [part.family] if part.family else []
    if part.recognised:
        label = part.recognised.label
        settings = ", ".join(_setting(*item) for item in part.recognised.settings.items())
        remarks.append(f"{label}: {settings}" if settings else label)
    if part.kept:
        many = "module" if len(part.kept) == 1 else "modules"
        remarks.append(f"{len(part.kept)} {many} in high precision")
    return [*remarks, *part.notes]


def _setting(name: str, value: Any) -> str:
    match value:
        case bool():
            return f"{name} {'yes' if value else 'no'}"
        case list() if len(value) > 2:
            return f"{name} {visible(value[0])} and {len(value) - 1} more"
        case list():
            return f"{name} {' and '.join(map(visible, value)) or 'nothing'}"
        case _:
            return f"{name} {visible(value)}"
