"""What will be drawn: the given settings, else the checkpoint's own, else those of a preset."""

from __future__ import annotations

import unicodedata
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
PRESETS = Path(__file__).parent / "presets.yaml"
#: The preset of a validation for which none is named.
STANDARD = "standard"
# More than anybody looks at: pictures, reports and pages grow with each.
_MOST_PROMPTS = 1000
# Characters: many times what T5's 512 tokens hold.
_LONGEST = 10_000


def load_settings(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    prompts: Path | None = None,
    *,
    preset: str | None = None,
    limit: int | None = None,
) -> Settings:
    """What to draw with the checkpoint or variant in `folder`, which may bring its own settings.

    `overrides` has keys of `Settings`; those whose value is None do not override. `prompts` is a
    text file with one prompt a line. `preset` names a row of `presets.yaml`. Of the prompts the
    first `limit` are drawn, else as many as the preset says, but all of the file `prompts`.
    Raises `BadInput` naming the file and what is wrong in it, `UsageError` for a wrong option.
    """
    values = _read_yaml(DEFAULT)
    where = DEFAULT
    chosen = _preset(preset) if preset else {}
    most = limit if limit is not None or prompts else chosen.get("limit")
    values |= {key: value for key, value in chosen.items() if key != "limit"}
    own = folder / SETTINGS_NAME
    if own.is_file():
        values |= _read_yaml(own)
        where = own
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    _check_keys("the settings given", given)
    if prompts is not None:
        given["prompts"] = read_prompts(prompts)
    try:
        found = Settings.model_validate(values | given)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if key in given and prompts is None:
            option = {"seeds": "seed"}.get(key, key).replace("_", "-")
            raise UsageError(f"--{option}: {_lower(first['msg'])}") from error
        raise BadInput(f"{where}: {key}: {_lower(first['msg'])}") from error
    if most is not None and most < 1:
        raise UsageError("--limit: draw at least one prompt")
    if len(found.prompts[:most]) > _MOST_PROMPTS:
        raise BadInput(
            f"{prompts or where}: holds {len(found.prompts)} prompts, of which at most "
            f"{_MOST_PROMPTS} can be drawn; choose the first ones with --limit"
        )
    return found.model_copy(update={"prompts": found.prompts[:most]})


def preset_names() -> tuple[str, ...]:
    """The presets, from the one that draws least."""
    return tuple(yaml.safe_load(PRESETS.read_text("utf-8")))


def read_prompts(file: Path) -> tuple[str, ...]:
    """The prompts in a text file, one a line; blank lines and repetitions are left out.

    Raises `BadInput` if it cannot be read, is not UTF-8 text or holds none.
    """
    # Not `splitlines`, which also splits at characters that a prompt may hold.
    lines = (line.strip() for line in _read_text(file).split("\n"))
    found = tuple(dict.fromkeys(line for line in lines if line))
    if not found:
        raise BadInput(f"{file}: holds no prompt; write one a line")
    for line in found:
        if any(unicodedata.category(each) == "Cc" and each != "\t" for each in line):
            raise BadInput(f"{file}: holds control characters, so it is no text with prompts")
        if len(line) > _LONGEST:
            raise BadInput(
                f"{file}: holds a line of {len(line)} characters, of which T5 would read a part; "
                "write one prompt a line"
            )
    return found


def _preset(name: str) -> dict[str, Any]:
    presets = yaml.safe_load(PRESETS.read_text("utf-8"))
    if name not in presets:
        raise UsageError(f"unknown preset '{name}'{nearest(name, presets)}")
    found: dict[str, Any] = presets[name]
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
        raise BadInput(f"{file}: is not UTF-8 text; save it as UTF-8") from error
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
