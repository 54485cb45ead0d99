"""A component's folder in the layout of diffusers or transformers: a config and its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fluxconv.converters import dtypes
from fluxconv.converters.architectures import ARCHITECTURES, Architecture
from fluxconv.converters.architectures.recognition import PLAIN, Part
from fluxconv.converters.component import Component
from fluxconv.converters.errors import MalformedFile, NotACheckpoint
from fluxconv.converters.safetensors_header import Header, read_header
from fluxconv.converters.sources.matching import match
from fluxconv.converters.visible import visible

PICKLES = frozenset({".bin", ".pt", ".ckpt", ".pth", ".pkl"})
PICKLE_ADVICE = (
    "is a pickle file, which can run code when opened; convert it to safetensors first "
    "(https://huggingface.co/spaces/safetensors/convert)"
)
#: Where SDNQ says how it quantized.
_QUANTIZED_BESIDE = "quantization_config.json"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors")


def open_component(folder: Path, inside: str = "") -> Component:
    """Open the folder of one component, `transformer/` or `text_encoder_2/`, of unquantized
    weights; `inside` is its path in the checkpoint, ending in a slash.

    Raises `NotACheckpoint` or `MalformedFile`.
    """
    config = read_json(folder / "config.json")
    architecture = architecture_of(config, folder)
    if "quantization_config" in config or (folder / _QUANTIZED_BESIDE).is_file():
        said = config.get("quantization_config")
        method = said.get("quant_method") if isinstance(said, dict) else None
        how = visible(method or "by others")
        raise NotACheckpoint(
            f"{folder}: is already quantized ({how}); give the checkpoint it was made from"
        )
    files = weight_files(folder, architecture)
    headers = tuple(read_header(file) for file in files)
    placed = _placed(folder, architecture)
    if placed is not None:
        _check_places(placed, headers)
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    try:
        parts = PLAIN.parts(architecture.specs(config))
    except (KeyError, TypeError, ValueError) as error:
        raise NotACheckpoint(f"{folder}/config.json: lacks or garbles {error}") from error
    parts = _under_second_names(architecture, parts, tensors)
    aliases = [name for names in architecture.tied.values() for name in names]
    title = f"{architecture.title} as its config describes"
    steps = match(folder, title, tensors, parts, ignored=aliases)
    as_it_is = all(
        tensors[step.stored[0]].dtype in dtypes.FLOATS and len(step.stored) == 1 for step in steps
    )
    return Component(
        architecture.component,
        folder,
        config,
        architecture,
        headers,
        steps,
        {f"{inside}{file.name}": file for file in (folder / "config.json", *files)},
        {f"{inside}{file.name}": file for file in sorted(folder.iterdir()) if file.is_file()}
        if as_it_is
        else {},
    )


def architecture_of(config: Mapping[str, Any], where: Path) -> Architecture:
    """The architecture that a `config.json` names.

    Raises `NotACheckpoint` for a class that fluxconv does not quantize.
    """
    names = [config.get("_class_name"), *(config.get("architectures") or [])]
    for architecture in ARCHITECTURES.values():
        if architecture.class_name in names:
            return architecture
    named = next((name for name in names if name), "no class")
    raise NotACheckpoint(
        f"{where}: config.json names {visible(named)}; fluxconv quantizes "
        + " and ".join(a.class_name for a in ARCHITECTURES.values())
    )


def weight_files(folder: Path, architecture: Architecture) -> list[Path]:
    """The component's safetensors files: the single one, or the shards that its index names.

    Raises `NotACheckpoint` if there are none, `MalformedFile` for an index that cannot be right.
    """
    placed = _placed(folder, architecture)
    if placed is None:
        return [folder / f"{architecture.weights_name}.safetensors"]
    names = sorted(set(placed.values()))
    for path in sorted(folder.iterdir()):
        numbered = path.name.removeprefix(architecture.weights_name)
        if _SHARD.fullmatch(numbered) and path.name not in names:
            raise MalformedFile(f"{path}: is a shard that the index beside it does not name")
    return [folder / name for name in names]


def refuse_pickles(folder: Path) -> None:
    """Raise `NotACheckpoint` if there is a pickle file in `folder`; for one without safetensors."""
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise NotACheckpoint(f"{folder}: {visible(pickles[0])} {PICKLE_ADVICE}")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file that came with a checkpoint; `MalformedFile` if it is not one."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise NotACheckpoint(f"{file}: is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise MalformedFile(f"{file}: is not valid JSON") from error
    if not isinstance(found, dict):
        raise MalformedFile(f"{file}: is not a JSON object")
    return found


def _placed(folder: Path, architecture: Architecture) -> dict[str, str] | None:
    """The shard of every tensor, as the index says; None where one file holds them all."""
    single = folder / f"{architecture.weights_name}.safetensors"
    index = folder / f"{architecture.weights_name}.safetensors.index.json"
    # Where both are there, each library has its own choice.
    if single.is_file() and not (index.is_file() and architecture.library == "diffusers"):
        return None
    if not index.is_file():
        refuse_pickles(folder)
        raise NotACheckpoint(f"{folder}: {single.name} is missing")
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not all(map(_is_beside, placed.values())):
        raise MalformedFile(f"{index}: its weight_map must name safetensors files beside it")
    return placed


def _is_beside(name: Any) -> bool:
    return (
        isinstance(name, str)
        and Path(name).name == name
        and "\\" not in name
        and name.endswith(".safetensors")
    )


def _check_places(placed: Mapping[str, str], headers: Iterable[Header]) -> None:
    """The index and the shards must agree on where every tensor is."""
    found = {header.file: [tensor.name for tensor in header.tensors] for header in headers}
    for file, names in found.items():
        lacking = {name for name, place in placed.items() if place == file.name} - set(names)
        if lacking:
            raise MalformedFile(
                f"{file}: lacks '{visible(min(lacking))}', which the index places there"
            )
        for name in names:
            if placed.get(name) != file.name:
                raise MalformedFile(
                    f"{file}: holds '{visible(name)}', which the index does not place there"
                )


def _under_second_names(
    architecture: Architecture,
    parts: Mapping[str, tuple[Part, ...]],
    tensors: Mapping[str, Any],
) -> dict[str, tuple[Part, ...]]:
    """`parts`, with a tied tensor under that of its names that the files have."""
    found = dict(parts)
    for name, others in architecture.tied.items():
        there = [other for other in others if other in tensors]
        if name in found and name not in tensors and there:
            found[there[0]] = found.pop(name)
    return found
