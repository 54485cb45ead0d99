"""Puts every command with its options into the page of commands, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from fluxconv.commands.main import cli

#: Where they come; what follows it is for those who read the page in the repository.
MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """The sections in place of the mark, on the page that has it."""
    if MARK not in markdown:
        return markdown
    sections = _described(cli, click.Context(cli, info_name="fluxconv"))
    return markdown.partition(MARK)[0] + "\n".join(sections)


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
    # In backticks a bar divides no cells, and a backslash before it would be shown.
    rows = "".join(f"| `{names}` | {_cell(text)} |\n" for names, text in options)
    path = context.command_path
    table = f"| option | what it does |\n|---|---|\n{rows}"
    return f"## {path}\n\n```\n{path} {usage}\n```\n\n{_help(command)}\n\n{table}"


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "")


def _cell(text: str) -> str:
    """Words for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
