"""`fluxconv verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxconv.commands.download import public_key_option
from fluxconv.commands.options import endpoint_option, timeout_option
from fluxconv.commands.output import Output, output_options
from fluxconv.converters.errors import CheckFailed

if TYPE_CHECKING:
    from fluxconv.hub.verifying import Verification


@click.command("verify")
@click.argument("what", nargs=-1, required=True, metavar="FOLDER|REPOSITORY|COLLECTION...")
@public_key_option
@click.option(
    "--contents",
    is_flag=True,
    help="Of a repository, fetch and hash every byte, instead of trusting what the Hub says of "
    "large files.",
)
@timeout_option
@endpoint_option
@output_options
def command(
    out: Output,
    what: tuple[str, ...],
    public_key: Path | None,
    contents: bool,
    timeout: float,
    endpoint: str | None,
) -> None:
    """Check variants again, here or on the Hub: hashes, structure, signature, report."""
    from fluxconv.hub.verifying import verify_folder, verify_published

    found: list[Verification] = []
    with out.progress() as progress:
        for each in what:
            if Path(each).exists():
                found.append(verify_folder(Path(each), public_key=public_key, progress=progress))
            else:
                found += verify_published(
                    each,
                    public_key=public_key,
                    contents=contents,
                    endpoint=endpoint,
                    timeout=timeout,
                    progress=progress,
                )

    def show() -> None:
        out.table(
            "",
            ("variant", ">files", ">tensors", "hashes", "signature", "report", "result"),
            [_row(each) for each in found],
        )
        for each in found:
            for problem in each.problems:
                out.line(f"{each.name}: {problem}")

    data = [{**asdict(each), "is_well": each.is_well} for each in found]
    harmed = [each.name for each in found if not each.is_well]
    failed = CheckFailed(f"{', '.join(harmed)}: not what it should be; see above")
    out.result({"variants": data}, show, failed if harmed else None)
    if harmed:
        raise failed


def _row(each: Verification) -> tuple[str, ...]:
    hashed = {"contents": "read and compared", "hub": "as the Hub has them"}[each.hashed]
    count = len(each.problems)
    result = "well" if each.is_well else f"{count} problem{'s' if count > 1 else ''}"
    return (
        each.name,
        str(each.files),
        str(each.tensors),
        hashed,
        each.signature,
        each.report,
        result,
    )
