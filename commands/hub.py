"""`fluxconv hub`."""

from __future__ import annotations

from pathlib import Path

import click

from fluxconv.commands.output import Output, output_options


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
    help="Write HF_ENDPOINT and HF_TOKEN here, for a shell to source, once it answers.",
)
@output_options
def serve(out: Output, directory: Path, host: str, port: int, ready_file: Path | None) -> None:
    """Serve a rehearsal Hub that keeps everything in DIRECTORY, until Ctrl-C.

    The real huggingface_hub client talks to it unchanged: set HF_ENDPOINT and HF_TOKEN as printed.
    """
    from fluxconv.converters.errors import BadInput
    from fluxconv.hub.rehearsal.server import ServerError, serve, tokens

    def ready(url: str) -> None:
        values = {"HF_ENDPOINT": url, "HF_TOKEN": tokens(directory)["write"]}
        exports = "".join(f"export {name}={value}\n" for name, value in values.items())
        if ready_file is not None:
            partial = ready_file.with_name(ready_file.name + ".partial")
            partial.touch(0o600)  # it holds a token
            partial.write_text(exports, "utf-8")
            partial.replace(ready_file)
        out.result(values, lambda: out.line(exports.rstrip()))
        out.note(f"rehearsal Hub at {url}, keeping everything in {directory}; Ctrl-C ends it")

    try:
        serve(directory, host, port, ready)
    except ServerError as error:
        raise BadInput(str(error)) from error
