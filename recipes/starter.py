"""A recipe to begin with."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from fluxconv.converters.errors import BadInput, CheckpointNotFound, OutputExists
from fluxconv.converters.visible import visible_path
from fluxconv.recipes.contradictions import MAY_BE_ON_HUB, checkpoint_name
from fluxconv.recipes.schema import SCHEMA_NAME, write_schema

_TEXT = Path(__file__).parent / "starter.yaml"
_DEFAULT = "black-forest-labs/FLUX.1-dev"
#: What YAML reads as text without quotes, whatever stands around it.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*", re.ASCII)


def write_starter(file: Path, checkpoint: str | None = None) -> tuple[Path, ...]:
    """Write a recipe with comments for `checkpoint` (as it is given in the current folder) to
    `file`, and the schema for editors beside it unless it is there; returns what was written.

    Raises `OutputExists` if `file` exists, `BadInput` if it cannot be written,
    `CheckpointNotFound`.
    """
    wanted = checkpoint or _DEFAULT
    here = Path(wanted)
    if here.exists():
        if not here.is_absolute():
            # Paths of a recipe are relative to its own folder.
            wanted = os.path.relpath(here.absolute(), file.absolute().parent.resolve())
    elif not MAY_BE_ON_HUB.fullmatch(wanted):
        raise CheckpointNotFound(
            f"{visible_path(wanted)}: no such folder or file, and no name on the Hub (owner/name)"
        )
    name = checkpoint_name(wanted) or here.resolve().name
    text = _TEXT.read_text("utf-8")
    text = text.replace("@CHECKPOINT@", _scalar(wanted)).replace(
        '"@NAME@, quantized"', _title(name)
    )
    shown = visible_path(file)
    schema = file.with_name(SCHEMA_NAME)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
        if os.path.lexists(schema):
            return (file,)
        write_schema(schema)
    except FileExistsError:
        raise OutputExists(f"{shown}: exists; remove it, or choose another name") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{shown}: cannot be written: {why}") from None
    return (file, schema)


def _title(name: str) -> str:
    """A collection's title in quotes; longer ones the Hub does not take."""
    return json.dumps(f"{name[:40]}, quantized")


def _scalar(text: str) -> str:
    """`text` as YAML reads it back: plain, or in JSON's quotes."""
    words = {"true", "false", "null", "yes", "no", "on", "off"}
    return text if _PLAIN.fullmatch(text) and text.lower() not in words else json.dumps(text)
