"""Opening a checkpoint: what it holds, from headers alone; it is never written to."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.component import Component
from fluxconv.converters.errors import CheckpointNotFound, NotACheckpoint, UsageError
from fluxconv.converters.manifest import MANIFEST_NAME, read_manifest
from fluxconv.converters.opened import (
    CARRIED,
    CARRIED_FILES,
    OTHER_WEIGHTS,
    Checkpoint,
    Opening,
    choose_components,
)
from fluxconv.converters.sources.folder import (
    architecture_of,
    open_component,
    read_json,
    refuse_pickles,
    weight_files,
)
from fluxconv.converters.sources.gguf_file import open_gguf_file
from fluxconv.converters.sources.single_file import BaseConfig, open_single_file
from fluxconv.converters.visible import visible

__all__ = [
    "CARRIED",
    "CARRIED_FILES",
    "OTHER_WEIGHTS",
    "Checkpoint",
    "Component",
    "Opening",
    "architecture_of",
    "choose_components",
    "open_checkpoint",
    "read_front_matter",
    "read_json",
    "weight_files",
]

#: The carried folders that have weights.
_WITH_WEIGHTS = ("text_encoder", "vae")


def open_checkpoint(
    path: Path | str,
    *,
    source: str | None = None,
    revision: str | None = None,
    base: Path | str | None = None,
    allow_requantize: bool = False,
) -> Checkpoint:
    """Open a pipeline folder, one component folder, a transformer in a single file, or, with
    `allow_requantize`, a variant that fluxconv made, or a transformer or T5 encoder in anybody's
    GGUF file; only headers and configs are read.

    `base` is the folder of a pipeline whose component a lone one takes the place of. Raises
    `CheckpointNotFound`, `NotACheckpoint`, `MalformedFile`, and `UsageError` for a base that a
    whole pipeline does not need.
    """
    given = Path(path)
    if not given.exists():
        raise CheckpointNotFound(f"{given}: no such file or folder")
    if not (given.is_file() or given.is_dir()):
        raise NotACheckpoint(f"{given}: is neither a file nor a folder")
    opening = Opening(str(given.absolute()), _absolute(base), allow_requantize)
    if given.is_file():
        # The name is its own, also where it is a link, as all files in the Hub's cache are.
        found = _open_file(given.parent.resolve() / given.name, base, opening)
    elif (given / MANIFEST_NAME).is_file():
        found = _open_variant(given.resolve(), opening)
    elif (given / "model_index.json").is_file():
        found = _open_pipeline(given.resolve(), opening)
    elif (given / "config.json").is_file():
        root = given.resolve()
        found = _lone(root, root.name, open_component(root), opening)
    else:
        refuse_pickles(given)
        raise NotACheckpoint(
            f"{given}: no Flux checkpoint here: neither model_index.json (a pipeline) nor "
            "config.json (a component) was found; a transformer in a single file is given by its "
            "own name"
        )
    if base is not None:
        found = _in_place(found, Path(base))
    return replace(found, source=source or found.source, revision=revision)


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


def _open_pipeline(root: Path, opening: Opening, without: str | None = None) -> Checkpoint:
    """The pipeline in `root`; the component `without` is not looked at, and may be missing."""
    index = read_json(root / "model_index.json")
    class_name = str(index.get("_class_name", ""))
    if not class_name.startswith("Flux"):
        raise NotACheckpoint(f"{root}: is a {class_name or 'nameless'} pipeline, not a Flux one")
    components = {
        name: open_component(root / name, f"{name}/")
        for name in ARCHITECTURES
        if name != without and (root / name).is_dir()
    }
    if not components and without is None:
        raise NotACheckpoint(f"{root}: has none of the folders {', '.join(ARCHITECTURES)}")
    parts = [name for name, value in index.items() if isinstance(value, list) and any(value)]
    lacking = [name for name in parts if name != without and not (root / name).is_dir()]
    if lacking:
        folders = ", ".join(f"{name}/" for name in lacking)
        raise NotACheckpoint(f"{root}: lacks {folders}, which model_index.json lists")
    for name in _WITH_WEIGHTS:
        if (root / name).is_dir() and not any((root / name).glob("*.safetensors")):
            refuse_pickles(root / name)
    return Checkpoint(
        root,
        root.name,
        root.name,
        None,
        components,
        read_front_matter(root / "README.md"),
        opening,
    )


def _lone(
    root: Path, name: str, component: Component, opening: Opening, notes: tuple[str, ...] = ()
) -> Checkpoint:
    front_matter = read_front_matter((root.parent if root.is_file() else root) / "README.md")
    components = {component.name: component}
    return Checkpoint(root, name, name, None, components, front_matter, opening, notes)


def _open_file(file: Path, base: Path | str | None, opening: Opening) -> Checkpoint:
    quantized = None
    if file.suffix == ".gguf":
        component, notes, quantized = open_gguf_file(
            file, partial(_base_config, base), allowed=opening.allow_requantize
        )
    else:
        component, notes = open_single_file(file, _base_config(base, "transformer"))
    found = _lone(file, file.stem, component, opening, notes)
    return replace(found, source=file.name, requantized=quantized)


def _open_variant(root: Path, opening: Opening) -> Checkpoint:
    # Variants are planned, and plans are made of checkpoints: they import this module.
    from fluxconv.converters.sources.requantized import open_quantized

    variant, components = open_quantized(root, allowed=opening.allow_requantize)
    metadata = variant.manifest.source.metadata
    return replace(
        Checkpoint(root, variant.name, variant.name, None, components, metadata, opening),
        requantized=variant.backend.label,
    )


def _in_place(lone: Checkpoint, base: Path) -> Checkpoint:
    """The pipeline `base` with the one component of `lone` in the place of its own."""
    if lone.is_pipeline:
        raise UsageError(f"--base: {lone.opening.path} is a whole pipeline and needs no other")
    (component,) = lone.components.values()
    _refuse_variant(base, but=component.name)
    whole = _open_pipeline(_pipeline_folder(base), lone.opening, without=component.name)
    if component.path.is_dir():
        theirs = _base_config(base, component.name)
        assert theirs is not None
        if component.architecture.specs(component.config) != component.architecture.specs(
            theirs.values
        ):
            raise NotACheckpoint(f"{component.path}: has other sizes than {theirs.file} describes")
        component = replace(
            component,
            files={f"{component.name}/{name}": path for name, path in component.files.items()},
            carried={f"{component.name}/{name}": path for name, path in component.carried.items()},
        )
    components = {**whole.components, component.name: component}
    return replace(
        lone,
        root=whole.root,
        components={name: components[name] for name in ARCHITECTURES if name in components},
        base=base.name,
    )


def _refuse_variant(base: Path, but: str) -> None:
    """Raise `NotACheckpoint` if `base` is a variant that has more than the component `but`
    quantized."""
    if not (base / MANIFEST_NAME).is_file():
        return
    manifest = read_manifest(base)
    for name in manifest.components.keys() - {but}:
        raise NotACheckpoint(
            f"--base {base}: is a {manifest.backend} variant, its {name} quantized; give the "
            f"pipeline it was made from, {visible(manifest.source.id)}"
        )


def _base_config(base: Path | str | None, component: str) -> BaseConfig | None:
    if base is None:
        return None
    recorded = f"{component}/config.json"
    file = _pipeline_folder(Path(base)) / recorded
    values = {k: v for k, v in read_json(file).items() if k != "quantization_config"}
    return BaseConfig(values, file, recorded)


def _pipeline_folder(base: Path) -> Path:
    if not (base / "model_index.json").is_file():
        raise NotACheckpoint(f"--base {base}: is no pipeline folder: it has no model_index.json")
    return base.resolve()


def _absolute(path: Path | str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())
