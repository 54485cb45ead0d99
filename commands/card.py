"""`fluxconv card`."""

from __future__ import annotations

import click

from fluxconv.commands.options import variants_argument
from fluxconv.commands.output import Output, output_options


@click.command("card")
@variants_argument
@click.option("--namespace", metavar="NAME", help="User or organisation they will be published as.")
@click.option("--no-validate", is_flag=True, help="Write a card that says: not validated.")
@output_options
def command(
    out: Output, variants: tuple[str, ...], namespace: str | None, no_validate: bool
) -> None:
    """Write README.md, LICENSE.md and NOTICE into each variant, from what was measured."""
    from fluxconv.cards import repository_name, write_card
    from fluxconv.converters import open_variant
    from fluxconv.validators import require_passed

    opened = [open_variant(path) for path in variants]
    if not no_validate:
        for variant in opened:
            require_passed(variant)
    written = [
        write_card(
            variant,
            siblings=opened,
            repository=f"{namespace}/{repository_name(variant)}" if namespace else None,
            validated=not no_validate,
        )
        for variant in opened
    ]

    def show() -> None:
        for path in written:
            out.line(str(path))

    out.result({"cards": [str(path) for path in written]}, show)
