"""`fluxconv hub`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from fluxconv.commands.output import Output, output_options

_MEBIBYTES = click.IntRange(min=1)


@click.group("hub")
def command() -> None:
    """A rehearsal Hub on this machine."""


@command.command("serve")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    help="Where HF_ENDPOINT and HF_TOKEN are written, for a shell to source, once it answers "
    "[environment.sh in DIRECTORY].",
)
@click.option(
    "--organization",
    "organizations",
    multiple=True,
    metavar="NAME[:ROLE]",
    help="Organisation of the first user of a new DIRECTORY; ROLE is admin, write or read.",
)
@click.option(
    "--faults",
    "script",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Fail as this script says.",
)
@click.option("--quota", type=_MEBIBYTES, help="What a namespace may store, in MiB.")
@click.option(
    "--multipart-above",
    type=_MEBIBYTES,
    default=128,
    show_default=True,
    help="Take LFS files larger than this, in MiB, in parts.",
)
@click.option(
    "--part-size", type=_MEBIBYTES, default=32, show_default=True, help="Size of a part, in MiB."
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Show the run that writes to this folder, too, as `fluxconv status` does.",
)
@output_options
def serve(
    out: Output,
    directory: Path,
    host: str,
    port: int,
    ready_file: Path | None,
    organizations: tuple[str, ...],
    script: Path | None,
    quota: int | None,
    multipart_above: int,
    part_size: int,
    run: Path | None,
) -> None:
    """Serve a rehearsal Hub that keeps everything in DIRECTORY, until Ctrl-C.

    The real huggingface_hub client talks to it unchanged: source the file that it names.
    """
    from fluxconv.converters.errors import BadInput
    from fluxconv.hub.rehearsal.faults import ScriptError, read_script
    from fluxconv.hub.rehearsal.limits import MIB, Limits
    from fluxconv.hub.rehearsal.pages import owner_address
    from fluxconv.hub.rehearsal.server import ServerError, serve, tokens

    def ready(url: str) -> None:
        # Never printed: terminals are recorded, and logs are kept.
        exports = {"HF_ENDPOINT": url, "HF_TOKEN": tokens(directory)["write"]}
        environment = ready_file or directory / "environment.sh"
        partial = environment.with_name(environment.name + ".partial")
        partial.touch(0o600)
        lines = (f"export {name}={value}\n" for name, value in exports.items())
        partial.write_text("".join(lines), "utf-8")
        partial.replace(environment)
        page = owner_address(directory, url)
        found = {"endpoint": url, "environment": str(environment), "page": page}
        out.result(found, lambda: out.line(f". {shlex.quote(str(environment))}"))
        out.note(f"rehearsal Hub at {url}, keeping everything in {directory}; Ctrl-C ends it")
        out.note("the line above, in another shell, sets HF_ENDPOINT and HF_TOKEN")
        out.note(f"look at it, signed in as its owner: {page}")
        if run is not None:
            out.note(f"the run, once you are signed in: {url}/-/run")

    def look() -> dict[str, Any]:
        from fluxconv.recipes import status

        assert run is not None
        return status(run).to_json()

    limits = Limits(multipart_above * MIB, part_size * MIB, None if quota is None else quota * MIB)
    try:
        faults = read_script(script).faults if script else ()
        serve(
            directory,
            host,
            port,
            ready,
            organizations=organizations,
            limits=limits,
            faults=faults,
            run=look if run else None,
        )
    except (ServerError, ScriptError) as error:
        raise BadInput(str(error)) from error
