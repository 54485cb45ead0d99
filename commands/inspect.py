"""`fluxconv inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from fluxconv.commands.output import Output, output_options, size


@click.command("inspect")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="List every stored tensor.")
@output_options
def command(out: Output, checkpoint: Path, tensors: bool) -> None:
    """Say what CHECKPOINT is: a pipeline, a component, a variant, or one weight file."""
    from fluxconv.converters.inspection import inspect

    found = inspect(checkpoint)
    data = {
        "path": str(found.path),
        "kind": found.kind,
        "variant": found.variant.manifest.model_dump(mode="json") if found.variant else None,
        "components": [
            {
                "name": part.name,
                "title": part.title,
                "files": [str(file) for file in part.files],
                "tensors": [[e.name, e.dtype, e.shape, e.nbytes] for e in part.entries]
                if tensors
                else part.tensors,
                "bytes": part.nbytes,
                "dtypes": part.dtypes,
                "weights": part.weights or None,
                "bits_per_weight": round(part.bits_per_weight, 4) if part.weights else None,
                "quantization": part.quantization,
            }
            for part in found.components
        ],
    }

    def show() -> None:
        out.line(f"{found.path}: {found.kind}")
        if found.variant:
            manifest = found.variant.manifest
            source = manifest.source.id + (
                f" at {manifest.source.revision}" if manifest.source.revision else ""
            )
            out.line(f"made with {manifest.backend} from {source}, on {manifest.device}")
        out.table(
            "",
            ("component", "what", "quantization", ">tensors", ">size", ">bits/weight", "stored as"),
            [
                (
                    part.name,
                    part.title,
                    part.quantization,
                    str(part.tensors),
                    size(part.nbytes),
                    f"{part.bits_per_weight:.2f}" if part.weights else "",
                    ", ".join(f"{count} {dtype}" for dtype, count in part.dtypes.items()),
                )
                for part in found.components
            ],
        )
        if tensors:
            out.table(
                "",
                ("tensor", "type", "shape", ">bytes"),
                [
                    (entry.name, entry.dtype, "x".join(map(str, entry.shape)), f"{entry.nbytes:,}")
                    for part in found.components
                    for entry in part.entries
                ],
            )

    out.result(data, show)
