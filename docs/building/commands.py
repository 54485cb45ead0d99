"""Writes the page of all commands and options from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fluxconv.commands.main import cli

PAGE = "commands.md"
_INTRODUCTION = """# Commands

What `fluxconv COMMAND --help` says, for all of them. Progress and messages go to stderr, results to
stdout; with `--json` that is one JSON object.

| exit code | what it means |
|---|---|
| 0 | done |
| 1 | a check failed |
| 2 | the command was given words it does not know |
| 3 | bad input: a file or folder that cannot be used |
| 4 | a library or device is missing, or memory |
| 5 | the Hub refused, failed or did not answer |
| 130 | interrupted |

[Troubleshooting](troubleshooting.md) has each error with its cause and cure.
"""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the page to those that are files."""
    parts = [_INTRODUCTION, *_described(cli, click.Context(cli, info_name="fluxconv"))]
    files.append(File.generated(config, PAGE, content="\n".join(parts)))
    return files


def _described(group: click.Group, context: click.Context) -> Iterator[str]:
    """A section for each command of the group, and for those of groups in it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _described(command, inner)
        else:
            yield _section(command, inner)


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    options = [
        row
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and (row := parameter.get_help_record(context))
    ]
    rows = "".join(f"| `{_cell(names)}` | {_cell(text)} |\n" for names, text in options)
    path = context.command_path
    table = f"| option | what it does |\n|---|---|\n{rows}"
    return f"## {path}\n\n```\n{path} {usage}\n```\n\n{command.help or ''}\n\n{table}"


def _cell(text: str) -> str:
    """Words for a cell of a table; inside backticks, too, `|` must be escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
