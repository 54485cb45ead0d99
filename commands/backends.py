"""`fluxconv backends`."""

from __future__ import annotations

import click

from fluxconv.commands.output import Output, output_options


@click.command("backends")
@output_options
def command(out: Output) -> None:
    """List every backend: bits, library, devices and options, and what is lacking here."""
    from fluxconv.converters.backends import all_backends, has_cuda, missing

    backends = list(all_backends().values())
    device = "cuda" if has_cuda() else "cpu"
    lacks = {b.name: missing(b, device) for b in backends}
    data = [
        {
            "name": b.name,
            "title": b.title,
            "bits": b.bits,
            "library": b.requirement.package,
            "minimum": b.requirement.minimum,
            "installed": b.requirement.installed,
            "ready": lacks[b.name] is None,
            "lacks": lacks[b.name],
            "fix": None if b.requirement.satisfied else b.requirement.fix,
            "options": {
                name: field.get_default() for name, field in type(b.options).model_fields.items()
            },
            "quantizes_on": b.quantizes_on,
            "runs_on": b.runs_on,
            "loads_in": b.loads_in,
        }
        for b in backends
    ]

    def show() -> None:
        out.table(
            "",
            ("backend", ">bits", "what it is", "library", "quantizes on", "runs on", "options"),
            [
                (
                    b.name,
                    f"{b.bits:g}",
                    b.title,
                    f"{b.requirement.package} {b.requirement.installed or 'is missing'}",
                    ", ".join(b.quantizes_on),
                    ", ".join(b.runs_on),
                    ", ".join(name for name in type(b.options).model_fields),
                )
                for b in backends
            ],
        )
        for b in backends:
            if lacks[b.name] is not None:
                out.line(f"not here: {b.name} {lacks[b.name]}")

    out.result({"backends": data}, show)
