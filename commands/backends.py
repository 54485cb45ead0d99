"""`fluxconv backends`."""

from __future__ import annotations

import click

from fluxconv.commands.output import Output, output_options


@click.command("backends")
@output_options
def command(out: Output) -> None:
    """List every backend: bits, library, devices, and what loads it."""
    from fluxconv.converters.backends import all_backends

    backends = list(all_backends().values())
    data = [
        {
            "name": b.name,
            "title": b.title,
            "bits": b.bits,
            "library": b.requirement.package,
            "minimum": b.requirement.minimum,
            "installed": b.requirement.installed,
            "ready": b.requirement.satisfied,
            "fix": None if b.requirement.satisfied else b.requirement.fix,
            "quantizes_on": b.quantizes_on,
            "runs_on": b.runs_on,
            "loads_in": b.loads_in,
        }
        for b in backends
    ]

    def show() -> None:
        out.table(
            "",
            ("backend", ">bits", "what it is", "library", "quantizes on", "runs on", "loads in"),
            [
                (
                    b.name,
                    f"{b.bits:g}",
                    b.title,
                    f"{b.requirement.package} {b.requirement.installed}"
                    if b.requirement.satisfied
                    else f"needs: {b.requirement.fix}",
                    ", ".join(b.quantizes_on),
                    ", ".join(b.runs_on),
                    ", ".join(b.loads_in),
                )
                for b in backends
            ],
        )

    out.result({"backends": data}, show)
