"""Opening a checkpoint: what it holds, from headers alone; it is never written to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import ARCHITECTURES, Architecture
from fluxconv.converters.errors import (
    CheckpointNotFound,
    MalformedFile,
    NotACheckpoint,
    UsageError,
    nearest,
)
from fluxconv.converters.safetensors_header import Header, TensorInfo, read_header
from fluxconv.converters.steps import Step, plain_step

#: The folders of a pipeline that variants carry over unchanged.
CARRIED = ("scheduler", "tokenizer", "tokenizer_2", "text_encoder", "vae")
#: Files beside them that belong to the checkpoint: its licence, and its own validation settings.
CARRIED_FILES = ("LICENSE.md", "LICENSE", "LICENSE.txt", "NOTICE", "validation.yaml")
_PICKLES = {".bin", ".pt", ".ckpt", ".pth"}


@dataclass(frozen=True)
class Component:
    """One component folder: its config and the checked headers of its weight files."""

    name: str
    path: Path
    config: Mapping[str, Any]
    architecture: Architecture
    headers: tuple[Header, ...]
    steps: tuple[Step, ...] = ()

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, in the order in which reading is sequential."""
        return {tensor.name: tensor for header in self.headers for tensor in header.tensors}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class Checkpoint:
    """A Flux checkpoint on this machine.

    `name` is what its variants are called after; `source` is what a reader would ask the Hub for
    (a repository id, or the folder's name), `revision` the commit if it came from the Hub;
    `front_matter` is the metadata of its README, empty if there is none.
    """

    root: Path
    name: str
    source: str
    revision: str | None
    components: Mapping[str, Component]
    front_matter: Mapping[str, Any]

    @property
    def is_pipeline(self) -> bool:
        """Whether this is a whole pipeline and not a lone component."""
        return (self.root / "model_index.json").is_file()

    def carried_files(self) -> list[Path]:
        """Paths relative to `root` of everything a variant takes over unchanged, sorted."""
        if not self.is_pipeline:
            return []
        found = [Path("model_index.json")]
        found += [Path(name) for name in CARRIED_FILES if (self.root / name).is_file()]
        for folder in CARRIED:
            found += [
                path.relative_to(self.root)
                for path in (self.root / folder).rglob("*")
                if path.is_file() and not any(p.startswith(".") for p in path.parts[-2:])
            ]
        return sorted(found)


def open_checkpoint(
    path: Path | str, *, source: str | None = None, revision: str | None = None
) -> Checkpoint:
    """Open a pipeline folder or one component folder; only headers and configs are read.

    Raises `CheckpointNotFound`, `NotACheckpoint` or `MalformedFile`.
    """
    given = Path(path)
    if not given.exists():
        raise CheckpointNotFound(f"{given}: no such file or folder")
    if not given.is_dir():
        raise NotACheckpoint(f"{given}: is a file; give the folder of a diffusers checkpoint")
    root = given.resolve()
    if (root / "model_index.json").is_file():
        return _open_pipeline(root, source, revision)
    if (root / "config.json").is_file():
        component = open_component(root)
        return Checkpoint(
            root,
            root.name,
            source or root.name,
            revision,
            {component.name: component},
            read_front_matter(root / "README.md"),
        )
    raise NotACheckpoint(
        f"{given}: no Flux checkpoint here: neither model_index.json (a pipeline) nor config.json "
        "(a component) was found"
    )


def _open_pipeline(root: Path, source: str | None, revision: str | None) -> Checkpoint:
    index = read_json(root / "model_index.json")
    class_name = str(index.get("_class_name", ""))
    if not class_name.startswith("Flux"):
        raise NotACheckpoint(f"{root}: is a {class_name or 'nameless'} pipeline, not a Flux one")
    components = {
        name: open_component(root / name) for name in ARCHITECTURES if (root / name).is_dir()
    }
    if not components:
        raise NotACheckpoint(f"{root}: has none of the folders {', '.join(ARCHITECTURES)}")
    return Checkpoint(
        root,
        root.name,
        source or root.name,
        revision,
        components,
        read_front_matter(root / "README.md"),
    )


def open_component(folder: Path) -> Component:
    """Open one component folder, `transformer/` or `text_encoder_2/`, of unquantized weights."""
    config = read_json(folder / "config.json")
    architecture = architecture_of(config, folder)
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "an unknown method")
        raise NotACheckpoint(
            f"{folder}: is already quantized ({method}); give the checkpoint it was made from, or "
            "`fluxconv dequantize` it first"
        )
    headers = tuple(read_header(file) for file in weight_files(folder, architecture))
    component = Component(architecture.component, folder, config, architecture, headers)
    _check_tensors(component)
    expected = {spec.name for spec in architecture.specs(config)}
    steps = tuple(plain_step(name) for name in component.tensors if name in expected)
    return replace(component, steps=steps)


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
        f"{where}: config.json names {named}; fluxconv quantizes "
        + " and ".join(a.class_name for a in ARCHITECTURES.values())
    )


def weight_files(folder: Path, architecture: Architecture) -> list[Path]:
    """The component's safetensors files: the single one, or the shards that its index names."""
    single = folder / f"{architecture.weights_name}.safetensors"
    if single.is_file():
        return [single]
    index = folder / f"{architecture.weights_name}.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
            for name in weight_map.values()
        ):
            raise MalformedFile(f"{index}: its weight_map must name safetensors files beside it")
        return [folder / name for name in sorted(set(weight_map.values()))]
    pickles = [path.name for path in folder.iterdir() if path.suffix in _PICKLES]
    if pickles:
        raise NotACheckpoint(
            f"{folder}: {pickles[0]} is a pickle file, which can run code when opened; convert it "
            "to safetensors first (https://huggingface.co/spaces/safetensors/convert)"
        )
    raise NotACheckpoint(f"{folder}: {single.name} is missing")


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


def read_front_matter(readme: Path) -> dict[str, Any]:
    """The YAML between the first two `---` lines of a model card; empty if there is none."""
    import yaml

    if not readme.is_file():
        return {}
    parts = readme.read_text("utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        found = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def choose_components(checkpoint: Checkpoint, wanted: tuple[str, ...]) -> tuple[Component, ...]:
    """The components to quantize: those wanted, or all that the checkpoint has."""
    for name in wanted:
        if name not in checkpoint.components:
            close = nearest(name, checkpoint.components)
            raise UsageError(f"{checkpoint.root}: has no component '{name}'{close}")
    return tuple(
        component
        for name, component in checkpoint.components.items()
        if not wanted or name in wanted
    )


def _check_tensors(component: Component) -> None:
    """Names and shapes must be those of the architecture with this config."""
    try:
        specs = component.architecture.specs(component.config)
    except (KeyError, TypeError, ValueError) as error:
        raise NotACheckpoint(f"{component.path}/config.json: lacks or garbles {error}") from error
    expected = {spec.name: spec.shape for spec in specs}
    aliases = {name for names in component.architecture.tied.values() for name in names}
    missing = [name for name in expected if name not in component.tensors]
    unexpected = [
        name for name in component.tensors if name not in expected | dict.fromkeys(aliases)
    ]
    for label, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            raise NotACheckpoint(
                f"{component.path}: not a {component.architecture.title} as its config describes: "
                f"{len(names)} {label} tensors, such as {', '.join(names[:5])}"
            )
    for name, shape in expected.items():
        tensor = component.tensors[name]
        if tensor.shape != shape:
            raise NotACheckpoint(
                f"{component.path}: '{name}' has shape {list(tensor.shape)} where the config asks "
                f"for {list(shape)}"
            )
        if tensor.dtype not in ("BF16", "F16", "F32"):
            raise NotACheckpoint(
                f"{component.path}: '{name}' is {tensor.dtype}; fluxconv reads BF16, F16 and F32"
            )
