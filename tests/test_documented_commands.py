"""Every command that a page shows exists, with these options and these values; so do the keys of
files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from documented import PAGES, ROOT, commands_in, name_of, spans_in, yaml_in

from fluxconv.commands.main import cli
from fluxconv.commands.options import chosen_backends
from fluxconv.converters.errors import UsageError
from fluxconv.recipes import Recipe
from fluxconv.validators import Settings

#: Only these say something that can be wrong without looking at the disk.
_CHECKED = (click.Choice, click.IntRange, click.FloatRange)
#: Of click itself, and Ray's.
_OF_OTHERS = {"--help", "--version", "--num-gpus", "--memory", "--object-store-memory"}
_OPTION = re.compile(r'"(--[a-z][a-z-]*)"')


def check(words: list[str]) -> None:
    """Raise `click.UsageError` or `UsageError` unless fluxconv takes these words."""
    command: click.Command = cli
    context = click.Context(cli, info_name="fluxconv")
    while isinstance(command, click.Group):
        name, words = words[0], words[1:]
        if name.startswith("-"):
            return  # an option of fluxconv itself
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        command, context = found, click.Context(found, info_name=name, parent=context)
    given, left, _ = command.make_parser(context).parse_args(list(words))
    if left:
        raise click.UsageError(f"left over: {left}")
    for parameter in command.get_params(context):
        value = given.get(parameter.name)
        if parameter.required and not isinstance(value, str | list | tuple):
            raise click.UsageError(f"{parameter.name} is missing")
        if isinstance(parameter.type, (*_CHECKED, type(click.INT))):
            values = value if isinstance(value, list | tuple) else [value]
            for each in values:
                if isinstance(each, str):
                    parameter.type.convert(each, parameter, context)
    _check_backends(given)


def _check_backends(given: dict[str, Any]) -> None:
    backends = given.get("backends")
    if isinstance(backends, list):
        named = [tuple(given.get(key) or ()) for key in ("settings", "skip", "tensor_types")]
        effort = given.get("effort")
        chosen_backends(tuple(backends), *named, effort if isinstance(effort, str) else None)


def options_of(command: click.Command, words: list[str]) -> set[str] | None:
    """All options of the command that the words begin with; None if they name none."""
    context = click.Context(command)
    if isinstance(command, click.Group):
        found = command.get_command(context, words[0]) if words else None
        return None if found is None else options_of(found, words[1:])
    return {
        name
        for parameter in command.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def every_option(command: click.Command = cli) -> set[str]:
    """All options of a command and of those in it."""
    if not isinstance(command, click.Group):
        return options_of(command, []) or set()
    context = click.Context(command)
    inner = [command.get_command(context, name) for name in command.list_commands(context)]
    return set().union(*(every_option(each) for each in inner if each is not None))


def options_of_scripts() -> set[str]:
    """All options of the scripts in `benchmarks/`."""
    scripts = (ROOT / "benchmarks").glob("*.py")
    return {name for file in scripts for name in _OPTION.findall(file.read_text("utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_fences_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for words in commands_in(page.read_text("utf-8")):
        match words:
            case ["fluxconv", *rest]:
                try:
                    check(rest)
                except (click.UsageError, UsageError) as error:
                    said = error.format_message() if isinstance(error, click.UsageError) else error
                    pytest.fail(f"{name_of(page)}: {' '.join(words)}: {said}")
            case ["make", target, *_]:
                assert target in targets, words
            case ["python", script, *_] if "/" in script:
                assert (ROOT / script).is_file(), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_prose_exist(page: Path) -> None:
    known = every_option() | options_of_scripts() | _OF_OTHERS
    for span in spans_in(page.read_text("utf-8")):
        words = span.replace("\\|", "|").split()
        options = known
        if words[0] == "fluxconv":
            options = (options_of(cli, words[1:]) or known) | _OF_OTHERS
        elif not words[0].startswith("--"):
            continue
        for word in words:
            if re.fullmatch(r"--[a-z][a-z-]*", word):
                assert word in options, f"{name_of(page)}: `{span}` has no {word}"


def test_pages_show_commands_at_all() -> None:
    shown = [words for page in PAGES for words in commands_in(page.read_text("utf-8"))]
    used = {words[1] for words in shown if words[0] == "fluxconv" and len(words) > 1}
    assert {"quantize", "validate", "push", "hub", "recommend"} <= used


@pytest.mark.parametrize(
    "wrong",
    [
        "fluxconv quantise x --backend bnb-nf4",
        "fluxconv quantize x --backend bnb-nf5",
        "fluxconv quantize x --backend bnb-nf4 --option granularity=row",
        "fluxconv quantize x",
        "fluxconv validate out --preset fast",
        "fluxconv validate",
        "fluxconv push out --collection T",
        "fluxconv push out --namespace me --colection T",
        "fluxconv hub run x",
        "fluxconv hub serve x --port many",
        "fluxconv inspect a b",
        "hf jobs run --detach IMAGE fluxconv run x.yaml --executor slurm",
        "hf jobs run IMAGE sh -c 'ray start &&\n fluxconv run x.yaml --executor slurm'",
    ],
)
def test_a_wrong_command_is_noticed(wrong: str) -> None:
    shown = commands_in(f"```sh\n{wrong}   # said\n```\n")
    (words,) = (words for words in shown if words[0] == "fluxconv")
    with pytest.raises((click.UsageError, UsageError)):
        check(words[1:])


def test_recipes_and_settings_on_pages_are_such() -> None:
    kinds = []
    for page in PAGES:
        for text in yaml_in(page.read_text("utf-8")):
            if text.startswith("checkpoints:"):
                Recipe.model_validate(yaml.safe_load(text))
                kinds.append("recipe")
            elif "\nprompts:" in text:
                Settings.model_validate(yaml.safe_load(text))
                kinds.append("settings")
    assert set(kinds) == {"recipe", "settings"}
