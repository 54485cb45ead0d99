"""`fluxconv push`."""

from __future__ import annotations

from dataclasses import asdict

import click

from fluxconv.commands.options import endpoint_option, variants_argument
from fluxconv.commands.output import Output, output_options, size


@click.command("push")
@variants_argument
@click.option(
    "--namespace", required=True, metavar="NAME", help="User or organisation to publish as."
)
@click.option("--collection", metavar="TITLE", help="Put the repositories into this collection.")
@click.option("--private", is_flag=True, help="Create private repositories.")
@click.option("--no-validate", is_flag=True, help="Push without a passed report; the card says so.")
@click.option(
    "--dry-run", is_flag=True, help="Check everything, show what would be sent, send nothing."
)
@endpoint_option
@output_options
def command(
    out: Output,
    variants: tuple[str, ...],
    namespace: str,
    collection: str | None,
    private: bool,
    no_validate: bool,
    dry_run: bool,
    endpoint: str | None,
) -> None:
    """Publish validated variants: a repository and one commit each, and a collection.

    The token is taken from HF_TOKEN or from `hf auth login`.
    """
    from fluxconv.converters import open_variant
    from fluxconv.hub import push

    opened = [open_variant(path) for path in variants]
    with out.progress() as progress:
        result = push(
            opened,
            namespace,
            collection=collection,
            validate_required=not no_validate,
            dry_run=dry_run,
            private=private,
            endpoint=endpoint,
            progress=progress,
        )

    def show() -> None:
        verb = "would send" if dry_run else "sent"
        out.table(
            "",
            ("repository", ">files", f">{verb}", "commit", "address"),
            [
                (
                    each.name + (" (new)" if each.is_new else ""),
                    f"{len(each.uploaded)} of {len(each.uploaded) + len(each.skipped)}",
                    size(each.uploaded_bytes),
                    (each.commit or "")[:12],
                    each.url,
                )
                for each in result.repositories
            ],
        )
        if dry_run:
            for each in result.repositories:
                for path in each.uploaded:
                    out.line(f"+ {each.name}/{path}")
                for path in each.deleted:
                    out.line(f"- {each.name}/{path}")
        if result.collection:
            out.line(f"collection {result.collection.title}: {result.collection.url or '(new)'}")

    out.result(asdict(result), show)
