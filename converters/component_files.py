"""The files of one component, whoever made it: its weights and what its configs say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import ARCHITECTURES, Architecture
from fluxconv.converters.checkpoint import read_json
from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.gguf.reader import read_gguf_header
from fluxconv.converters.packed_weights import text_json
from fluxconv.converters.safetensors_header import read_header
from fluxconv.converters.sources.folder import PICKLES
from fluxconv.converters.stored import StoredEntry, read_entries
from fluxconv.converters.visible import visible, visible_path

Config = Mapping[str, Any]
FORMATS = (".safetensors", ".gguf")
#: What diffusers and transformers call their weights.
_STEMS = ("diffusion_pytorch_model", "model")
#: Beside a component's config: the quantization that SDNQ writes, and quanto's map of modules.
_QUANTIZATION, _QUANTO_MAP = "quantization_config.json", "quanto_qmap.json"
_LARGEST_CONFIG = 1 << 24  # bytes


@dataclass(frozen=True)
class ComponentFiles:
    """One component: its weight files in a format that is read, those `unopened`, and its configs.

    A lone file has an empty `config`.
    """

    files: tuple[Path, ...]
    unopened: tuple[Path, ...]
    config: Config
    beside: Config | None
    quanto_map: Config | None

    @property
    def architecture(self) -> Architecture | None:
        """The one that the config names, if fluxconv knows it."""
        names = self.class_names
        return next((each for each in ARCHITECTURES.values() if each.class_name in names), None)

    @property
    def class_names(self) -> list[str]:
        """The model's classes, as the config names them."""
        names = self.config.get("architectures")
        found = [self.config.get("_class_name"), *(names if isinstance(names, list) else [])]
        return [visible(name) for name in found if isinstance(name, str)]

    @property
    def quantization(self) -> Config | None:
        """The quantization's config: in `config.json`, beside it, or in the weights' headers."""
        found = self.config.get("quantization_config", self.beside)
        if isinstance(found, dict):
            return found
        return text_json(self.metadata.get("quantization_config")) or None

    @cached_property
    def entries(self) -> tuple[StoredEntry, ...]:
        """Every stored tensor."""
        return tuple(entry for file in self.files for entry in read_entries(file))

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """That of the headers of all files."""
        found: dict[str, Any] = {}
        for file in self.files:
            is_gguf = file.suffix == ".gguf"
            found |= (read_gguf_header(file) if is_gguf else read_header(file)).metadata
        return found


def in_folder(folder: Path, files: tuple[Path, ...] = ()) -> ComponentFiles:
    """The component in `folder`; `files` are its weights if they lie elsewhere.

    Raises `NotACheckpoint` without a config, `MalformedFile` for one that cannot be read.
    """
    beside, quanto_map = folder / _QUANTIZATION, folder / _QUANTO_MAP
    found = files or tuple(weights_in(folder))
    return ComponentFiles(
        tuple(file for file in found if file.suffix in FORMATS),
        tuple(file for file in found if file.suffix not in FORMATS),
        small_json(folder / "config.json"),
        small_json(beside) if beside.is_file() else None,
        small_json(quanto_map) if quanto_map.is_file() else None,
    )


def weights_in(folder: Path) -> list[Path]:
    """The weight files that a library would open in `folder`, pickles if there is nothing else."""
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if (folder / f"{stem}.safetensors").is_file():
            return [folder / f"{stem}.safetensors"]
        if index.is_file():
            return [folder / name for name in _shards(index)]
    return loose_files(folder) or [
        file for file in sorted(folder.iterdir()) if file.suffix in PICKLES and file.is_file()
    ]


def loose_files(folder: Path) -> list[Path]:
    """The weight files in `folder` itself."""
    return [file for file in sorted(folder.iterdir()) if file.suffix in FORMATS and file.is_file()]


def small_json(file: Path) -> dict[str, Any]:
    """A JSON object of the size of a config; raises `NotACheckpoint` or `MalformedFile`."""
    if file.is_file() and file.stat().st_size > _LARGEST_CONFIG:
        raise MalformedFile(f"{visible_path(file)}: is too large for a config")
    return read_json(file)


def _shards(index: Path) -> list[str]:
    placed = small_json(index).get("weight_map")
    names = set(placed.values()) if isinstance(placed, dict) else {None}
    if not all(isinstance(name, str) and _is_beside(name) for name in names):
        raise MalformedFile(
            f"{visible_path(index)}: its weight_map must name safetensors files beside it"
        )
    return sorted(map(str, names))


def _is_beside(name: str) -> bool:
    return Path(name).name == name and "\\" not in name and name.endswith(".safetensors")
