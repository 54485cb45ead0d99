"""`fluxconv plan`."""

from __future__ import annotations

from pathlib import Path

import click

from fluxconv.commands.options import (
    backend_options,
    base_option,
    checkpoint_argument,
    chosen_backends,
    component_option,
    requantize_option,
    revision_option,
)
from fluxconv.commands.output import Output, output_options, size


@click.command("plan")
@checkpoint_argument
@backend_options
@component_option
@revision_option
@base_option
@requantize_option
@click.option("--tensors", is_flag=True, help="Show the decision on every tensor.")
@output_options
def command(
    out: Output,
    checkpoint: str,
    revision: str | None,
    base: str | None,
    allow_requantize: bool,
    backends: tuple[str, ...],
    settings: tuple[str, ...],
    skip: tuple[str, ...],
    tensor_types: tuple[str, ...],
    effort: str | None,
    importance: Path | None,
    components: tuple[str, ...],
    tensors: bool,
) -> None:
    """Show what quantize would write, to the byte, from headers alone."""
    from fluxconv.converters import plan
    from fluxconv.converters.backends import has_cuda, missing
    from fluxconv.converters.planning import VariantPlan
    from fluxconv.hub.sources import open_source

    # Before any download.
    chosen = chosen_backends(backends, settings, skip, tensor_types, effort, importance)
    with out.progress() as progress:
        source = open_source(
            checkpoint,
            revision=revision,
            base=base,
            allow_requantize=allow_requantize,
            progress=progress,
        )
    plans = plan(source, chosen, components)
    device = "cuda" if has_cuda() else "cpu"
    lacks = {item.name: missing(item.backend, device) for item in plans}

    def variant(item: VariantPlan) -> dict[str, object]:
        return {
            "name": item.name,
            "backend": item.backend.name,
            "options": item.backend.options.changed(),
            "lacks": lacks[item.name],
            "remark": item.remark,
            "bytes": item.nbytes,
            "weight_bytes": item.weight_bytes,
            "carried_bytes": item.carried_bytes,
            "bits_per_weight": round(item.bits_per_weight, 4),
            "peak_memory": item.peak_memory,
            "components": {
                c.component: {
                    "files": {f.name: f.size for f in c.files},
                    "bits_per_weight": round(c.bits_per_weight, 4),
                    "reasons": c.reasons,
                }
                | (
                    {
                        "tensors": [
                            {
                                "name": t.name,
                                "shape": t.target.shape,
                                "reason": t.reason,
                                "stored": {s.name: [s.dtype, s.shape] for s in t.stored},
                                "bytes": t.nbytes,
                            }
                            for t in c.tensors
                        ]
                    }
                    if tensors
                    else {}
                )
                for c in item.components
            },
        }

    def show() -> None:
        out.table(
            f"{source.name}: {sum(c.nbytes for c in source.components.values()):,} bytes of "
            "weights to quantize",
            ("variant", "component", ">weights", ">bits/weight", "tensors"),
            [
                (
                    item.name,
                    c.component,
                    f"{c.nbytes:,} B",
                    f"{c.bits_per_weight:.2f}",
                    ", ".join(f"{count} {reason}" for reason, count in c.reasons.items()),
                )
                for item in plans
                for c in item.components
            ],
        )
        out.table(
            "",
            ("variant", ">weights", ">carried over", ">on disk", ">memory to encode"),
            [
                (
                    item.name,
                    size(item.weight_bytes),
                    size(item.carried_bytes),
                    size(item.nbytes),
                    size(item.peak_memory),
                )
                for item in plans
            ],
        )
        for item in plans:
            if item.remark is not None:
                out.line(f"{item.name}: {item.remark}")
            if lacks[item.name] is not None:
                out.line(f"cannot be made here: {item.backend.name} {lacks[item.name]}")
        if tensors:
            out.table(
                "",
                ("backend", "tensor", "shape", "stored as", ">bytes", "why"),
                [
                    (
                        item.backend.name,
                        t.name,
                        "x".join(map(str, t.target.shape)),
                        t.stored[0].dtype,
                        f"{t.nbytes:,}",
                        t.reason,
                    )
                    for item in plans
                    for c in item.components
                    for t in c.tensors
                ],
            )

    out.result({"source": source.source, "variants": [variant(item) for item in plans]}, show)
