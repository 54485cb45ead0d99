"""What will be drawn: the given settings, else the checkpoint's own, else the committed default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fluxconv.converters.errors import BadInput, UsageError, nearest
from fluxconv.validators.report import Settings

#: A checkpoint may bring its own settings: what a fine-tune was trained to draw shows most.
SETTINGS_NAME = "validation.yaml"
DEFAULT = Path(__file__).parent / "prompts" / "default.yaml"


def load_settings(
    folder: Path, overrides: Mapping[str, Any] | None = None, prompts: Path | None = None
) -> Settings:
    """What to draw with the checkpoint or variant in `folder`, which may bring its own settings.

    `overrides` has keys of `Settings`; those whose value is None do not override. `prompts` is a
    text file with one prompt a line. Raises `BadInput` naming the file and what is wrong in it.
    """
    values = _read_yaml(DEFAULT)
    where = DEFAULT
    own = folder / SETTINGS_NAME
    if own.is_file():
        values |= _read_yaml(own)
        where = own
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    _check_keys("the settings given", given)
    if prompts is not None:
        given["prompts"] = read_prompts(prompts)
    try:
        return Settings.model_validate(values | given)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if key in given and prompts is None:
            raise UsageError(f"--{key.replace('_', '-')}: {_lower(first['msg'])}") from error
        raise BadInput(f"{where}: {key}: {_lower(first['msg'])}") from error


def read_prompts(file: Path) -> tuple[str, ...]:
    """The prompts in a text file, one a line, blank lines left out; raises `BadInput`."""
    text = _read_text(file)
    found = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not found:
        raise BadInput(f"{file}: holds no prompt; write one a line")
    return found


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(_read_text(file))
    except yaml.YAMLError as error:
        raise BadInput(f"{file}: is not valid YAML") from error
    if not isinstance(found, dict):
        raise BadInput(f"{file}: must hold keys and values such as 'steps: 20'")
    _check_keys(str(file), found)
    return found


def _read_text(file: Path) -> str:
    try:
        # utf-8-sig: editors on Windows put a mark at the start, which is no part of a prompt.
        return file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: is not UTF-8 text") from error
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error


def _check_keys(where: str, values: Mapping[Any, Any]) -> None:
    for key in values:
        if key not in Settings.model_fields:
            raise BadInput(
                f"{where}: unknown key '{key}'{nearest(str(key), Settings.model_fields)}"
            )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
