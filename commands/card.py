"""`fluxconv card`."""

from __future__ import annotations

from pathlib import Path

import click

from fluxconv.commands.options import endpoint_option, sign_option, variants_argument
from fluxconv.commands.output import Output, output_options


@click.command("card")
@variants_argument
@click.option("--namespace", metavar="NAME", help="User or organisation they will be published as.")
@click.option("--no-validate", is_flag=True, help="Write a card that says: not validated.")
@click.option(
    "--blind-test",
    "blind_tests",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Result of the blind test, as report.html saves it; give it once for each. It is kept in "
    "the variants that it is about.",
)
@click.option(
    "--check-online",
    is_flag=True,
    help="Ask the Hub, too, whether it would accept the card's metadata.",
)
@sign_option
@endpoint_option
@output_options
def command(
    out: Output,
    variants: tuple[str, ...],
    namespace: str | None,
    no_validate: bool,
    blind_tests: tuple[Path, ...],
    check_online: bool,
    private_key: Path | None,
    endpoint: str | None,
) -> None:
    """Write README.md, LICENSE.md and NOTICE into each variant, from what was measured."""
    from fluxconv.cards import write
    from fluxconv.converters import open_variant

    opened = [open_variant(path) for path in variants]
    written = list(
        write(opened, namespace=namespace, validated=not no_validate, blind_tests=blind_tests)
    )
    if check_online:
        from fluxconv.hub.card_check import require_good_cards

        require_good_cards({path: path.read_text("utf-8") for path in written}, endpoint=endpoint)
    if private_key is not None:
        from fluxconv.hub.signing import sign

        written += [sign(variant, private_key) for variant in opened]

    def show() -> None:
        for path in written:
            out.line(str(path))

    out.result({"cards": [str(path) for path in written]}, show)
