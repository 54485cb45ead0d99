"""What a folder or file holds: components, tensors, dtypes, quantization; from headers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import ARCHITECTURES, Architecture
from fluxconv.converters.checkpoint import architecture_of, read_json, weight_files
from fluxconv.converters.errors import CheckpointNotFound, NotACheckpoint
from fluxconv.converters.gguf.reader import read_gguf_header
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.stored import StoredEntry, read_entries
from fluxconv.converters.variant import Variant, open_variant


@dataclass(frozen=True)
class InspectedComponent:
    """One component: `dtypes` counts stored tensors, `quantization` is what its config says."""

    name: str
    title: str
    files: tuple[Path, ...]
    tensors: int
    nbytes: int
    dtypes: Mapping[str, int]
    weights: int
    quantization: str
    entries: tuple[StoredEntry, ...]

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.weights


@dataclass(frozen=True)
class Inspection:
    """`kind` is `pipeline`, `component`, `variant` or `file`."""

    path: Path
    kind: str
    components: tuple[InspectedComponent, ...]
    variant: Variant | None


def inspect(path: Path | str) -> Inspection:
    """Look at a pipeline, a component folder, a variant, or one safetensors or GGUF file.

    Raises `CheckpointNotFound`, `NotACheckpoint`, `NotAVariant` or `MalformedFile`.
    """
    place = Path(path)
    if not place.exists():
        raise CheckpointNotFound(f"{place}: no such file or folder")
    if place.is_file():
        return Inspection(place, "file", (_file(place),), None)
    if (place / MANIFEST_NAME).is_file():
        variant = open_variant(place)
        parts = tuple(_variant_component(variant, name) for name in variant.manifest.components)
        return Inspection(place, "variant", parts, variant)
    if (place / "model_index.json").is_file():
        found = [place / name for name in ARCHITECTURES if (place / name / "config.json").is_file()]
        if found:
            parts = tuple(_folder(folder) for folder in found)
            return Inspection(place, "pipeline", parts, None)
    elif (place / "config.json").is_file():
        return Inspection(place, "component", (_folder(place),), None)
    raise NotACheckpoint(f"{place}: no Flux checkpoint, component or variant here")


def _folder(folder: Path) -> InspectedComponent:
    config = read_json(folder / "config.json")
    architecture = architecture_of(config, folder)
    files = tuple(weight_files(folder, architecture))
    return _component(architecture, config, files, describe_quantization(config))


def _variant_component(variant: Variant, name: str) -> InspectedComponent:
    config = read_json(variant.root / name / "config.json")
    files = tuple(variant.root / file for file in variant.manifest.components[name].files)
    return _component(ARCHITECTURES[name], config, files, variant.manifest.backend)


def _component(
    architecture: Architecture, config: Mapping[str, Any], files: tuple[Path, ...], how: str
) -> InspectedComponent:
    entries = tuple(entry for file in files for entry in read_entries(file))
    return InspectedComponent(
        architecture.component,
        architecture.title,
        files,
        len(entries),
        sum(entry.nbytes for entry in entries),
        dict(Counter(entry.dtype for entry in entries).most_common()),
        sum(spec.numel for spec in architecture.specs(config)),
        how,
        entries,
    )


def _file(file: Path) -> InspectedComponent:
    if file.suffix not in (".safetensors", ".gguf"):
        raise NotACheckpoint(f"{file}: is neither a safetensors nor a GGUF file")
    entries = read_entries(file)
    return InspectedComponent(
        file.name,
        f"{file.suffix.removeprefix('.')} file",
        (file,),
        len(entries),
        sum(entry.nbytes for entry in entries),
        dict(Counter(entry.dtype for entry in entries).most_common()),
        0,
        _describe_gguf(file) if file.suffix == ".gguf" else "a lone file has no config",
        entries,
    )


def _describe_gguf(file: Path) -> str:
    from gguf import LlamaFileType

    metadata = read_gguf_header(file).metadata
    number = metadata.get("general.file_type")
    known = {kind.value: kind.name.removeprefix("MOSTLY_") for kind in LlamaFileType}
    return f"{metadata.get('general.architecture', 'unknown')} {known.get(number, '')}".strip()


def describe_quantization(config: Mapping[str, Any]) -> str:
    """What a `config.json` says of its weights: the method and its main setting, or `none`."""
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return "none"
    method = str(found.get("quant_method", "unknown"))
    detail = ""
    if found.get("load_in_4bit"):
        detail = str(found.get("bnb_4bit_quant_type", "4-bit"))
    elif found.get("load_in_8bit"):
        detail = "int8"
    elif isinstance(found.get("quant_type"), dict):
        detail = str(found["quant_type"].get("default", {}).get("_type", ""))
    elif "weights_dtype" in found:
        detail = str(found["weights_dtype"])
    return f"{method} {detail}".strip()
