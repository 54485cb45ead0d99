"""Which files of a repository a checkpoint needs; repositories hold much else."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from fluxconv.converters.architectures import ARCHITECTURES, Architecture
from fluxconv.converters.checkpoint import CARRIED, CARRIED_FILES, OTHER_WEIGHTS
from fluxconv.converters.variant import is_safe_path

INDEX = "model_index.json"
README = "README.md"
#: Weights in a second precision, beside those that are loaded unless `variant=` is given.
_SECOND = re.compile(r"(model|diffusion_pytorch_model)\.(?!safetensors)[^.]+\.safetensors(\..*)?")


def needed_files(names: Collection[str], without: str | None = None) -> list[str]:
    """Those of the repository's files `names` that its pipeline, or else its lone component, is
    made of; none if it holds neither. Of the component `without` no weights are taken.
    """
    names = [name for name in names if is_safe_path(name)]
    if INDEX in names:
        found = [name for name in names if name in (INDEX, README, *CARRIED_FILES)]
        found += [name for name in names if _is_carried(PurePosixPath(name))]
        for name, architecture in ARCHITECTURES.items():
            found += {f"{name}/config.json"} & set(names)
            if name != without:
                found += _weights(names, f"{name}/", architecture)
        return found
    if "config.json" in names:
        weights = [w for a in ARCHITECTURES.values() for w in _weights(names, "", a)]
        return ["config.json", *weights, *({README} & set(names))] if weights else []
    return []


def file_called(names: Collection[str], wanted: str) -> str | None:
    """The file at the path `wanted`, or the only one anywhere of that name; None if there is none.

    A manifest has the names of single files without the folders above them.
    """
    if wanted in names:
        return wanted if is_safe_path(wanted) else None
    found = [name for name in names if PurePosixPath(name).name == wanted and is_safe_path(name)]
    return found[0] if len(found) == 1 else None


def _is_carried(path: PurePosixPath) -> bool:
    return (
        path.parts[0] in CARRIED
        and len(path.parts) > 1
        and path.suffix not in OTHER_WEIGHTS
        and not _SECOND.fullmatch(path.name)
    )


def _weights(names: Collection[str], folder: str, architecture: Architecture) -> list[str]:
    """The component's weights and their index, as its library chooses between several."""
    stem = f"{folder}{architecture.weights_name}"
    single, index = f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    if index in names and not (architecture.library == "transformers" and single in names):
        shard = re.compile(re.escape(stem) + r"-\d{5}-of-\d{5}\.safetensors")
        return [index, *(name for name in names if shard.fullmatch(name))]
    return [single] if single in names else []
