"""`fluxconv push`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fluxconv.commands.options import (
    endpoint_option,
    sign_option,
    timeout_option,
    variants_argument,
)
from fluxconv.commands.output import Output, output_options, size

if TYPE_CHECKING:
    from fluxconv.hub import PushResult, Step

_MARKS = {"send": "+", "known": "=", "there": " ", "delete": "-"}
_WORDS = {
    "send": "would be sent",
    "known": "the Hub has the content under another name",
    "there": "the Hub has it",
    "delete": "would be deleted: an older push of this variant left it",
}


@click.command("push")
@variants_argument
@click.option(
    "--namespace", required=True, metavar="NAME", help="User or organisation to publish as."
)
@click.option("--collection", metavar="TITLE", help="Put the repositories into this collection.")
@click.option(
    "--public/--private",
    "public",
    default=None,
    help="How the repositories end up. By default a new one becomes public, and a finished one "
    "stays as it is. Every new one is private until it is verified.",
)
@click.option(
    "--gated",
    type=click.Choice(["auto", "manual", "off"]),
    help="Ask whoever downloads for consent. By default as the source does.",
)
@click.option(
    "--replace", is_flag=True, help="Publish into a repository with other files, which stay."
)
@click.option(
    "--create-pr", is_flag=True, help="Propose to repositories of others, as pull requests."
)
@sign_option
@click.option("--no-validate", is_flag=True, help="Push without a passed report; the card says so.")
@click.option(
    "--dry-run", is_flag=True, help="Check everything, show what would be sent, send nothing."
)
@timeout_option
@endpoint_option
@output_options
def command(
    out: Output,
    variants: tuple[str, ...],
    namespace: str,
    collection: str | None,
    public: bool | None,
    gated: Literal["auto", "manual", "off"] | None,
    replace: bool,
    create_pr: bool,
    private_key: Path | None,
    no_validate: bool,
    dry_run: bool,
    timeout: float,
    endpoint: str | None,
) -> None:
    """Publish validated variants: a repository and one commit each, and a collection.

    The token is taken from HF_TOKEN or from `hf auth login`. Stopped at any moment, the same
    command goes on. With --json, what happens is told on stderr, one JSON object a line.
    """
    from fluxconv.converters import open_variant
    from fluxconv.hub import push

    opened = [open_variant(path) for path in variants]
    with _Events() if out.as_json else out.progress() as progress:

        def on_step(step: Step) -> None:
            if isinstance(progress, _Events):
                progress.tell("step", **asdict(step))
            elif not out.quiet:
                progress.note(f"{step.place}: {step.step} {step.detail}")

        result = push(
            opened,
            namespace,
            collection=collection,
            validate_required=not no_validate,
            dry_run=dry_run,
            private=None if public is None else not public,
            gated=gated,
            replace=replace,
            create_pr=create_pr,
            private_key=private_key,
            timeout=timeout,
            endpoint=endpoint,
            progress=progress,
            on_step=on_step,
        )
    out.result(asdict(result), lambda: _show(out, result))


def _show(out: Output, result: PushResult) -> None:
    verb = "would send" if result.dry_run else "sent"
    out.table(
        "",
        ("repository", ">files", f">{verb}", "commit", "how", "address"),
        [
            (
                each.name + (" (new)" if each.is_new else ""),
                f"{len(each.uploaded)} of {len(each.uploaded) + len(each.skipped)}",
                size(each.uploaded_bytes),
                (each.commit or "")[:12],
                ("private" if each.private else "public")
                + (f", gated ({each.gated})" if each.gated else ""),
                each.pull_request or each.url,
            )
            for each in result.repositories
        ],
    )
    if result.dry_run:
        for each in result.repositories:
            for file in each.files:
                out.line(
                    f"{_MARKS[file.action]} {each.name}/{file.path}  {size(file.size)}  "
                    f"({_WORDS[file.action]})"
                )
    if result.collection:
        out.line(f"collection {result.collection.title}: {result.collection.url or '(new)'}")


class _Events:
    """Progress as JSON, one object a line on stderr, for programs; at most one line a second about
    the same task."""

    def __init__(self) -> None:
        self._task, self._total, self._unit = "", 0, ""
        self._done = 0
        self._began = self._told = 0.0

    def __enter__(self) -> _Events:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tell(self, event: str, **facts: Any) -> None:
        """One event, now."""
        click.echo(json.dumps({"event": event, **facts}, ensure_ascii=False), err=True)

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self._task, self._total, self._unit, self._done = task, total, unit, 0
        self._began = self._told = time.monotonic()
        self.tell("start", task=task, total=total, unit=unit)

    def advance(self, amount: int, item: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._told < 1:
            return
        self._told = now
        speed = self._done / (now - self._began)
        self.tell(
            "progress",
            task=self._task,
            done=self._done,
            total=self._total,
            unit=self._unit,
            per_second=round(speed),
            seconds_left=round((self._total - self._done) / speed) if speed else None,
        )

    def finish(self) -> None:
        self.tell("finish", task=self._task, seconds=round(time.monotonic() - self._began, 1))

    def note(self, text: str) -> None:
        self.tell("note", text=text)
