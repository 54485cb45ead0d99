"""What a folder or file holds: components, tensors, dtypes, quantization; from headers and configs.

Everything is described, also what fluxconv could not take as a source: other models, and what other
tools quantized.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import ARCHITECTURES, FLUX
from fluxconv.converters.architectures.families import family_of
from fluxconv.converters.architectures.recognition import Recognised, recognise
from fluxconv.converters.component_files import (
    FORMATS,
    ComponentFiles,
    in_folder,
    loose_files,
    small_json,
    weights_in,
)
from fluxconv.converters.contents import lora_rank, what_is_in
from fluxconv.converters.errors import CheckpointNotFound, NotACheckpoint
from fluxconv.converters.gguf.statements import (
    contradiction,
    mistaken_family,
    scheme,
    statements,
)
from fluxconv.converters.importance.statements import importance_statements
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.packed_weights import Weight
from fluxconv.converters.recognition import Quantization, recognise_quantization
from fluxconv.converters.sources.folder import PICKLE_ADVICE, PICKLES
from fluxconv.converters.stored import StoredEntry
from fluxconv.converters.stored_weights import weights_of
from fluxconv.converters.variant import Variant, open_variant
from fluxconv.converters.visible import visible, visible_path


@dataclass(frozen=True)
class InspectedComponent:
    """One component, or one weight file.

    `dtypes` counts stored tensors, `weights` the numbers of the model, None where the files do not
    tell. `quantization` is a short name for all of `recognised`. `kept` are the modules that stay
    in high precision beside quantized ones. `family` is which Flux it is, `notes` what else is to
    be said. `unopened` are pickle files, which are never opened.
    """

    name: str
    title: str
    files: tuple[Path, ...]
    tensors: int
    nbytes: int
    dtypes: Mapping[str, int]
    weights: int | None
    quantization: str
    recognised: Quantization | None
    kept: tuple[str, ...]
    family: str | None
    notes: tuple[str, ...]
    unopened: tuple[Path, ...]
    entries: tuple[StoredEntry, ...]

    @property
    def bits_per_weight(self) -> float | None:
        """Stored bits, scales and kept tensors included, over the number of weights."""
        return 8 * self.nbytes / self.weights if self.weights else None


@dataclass(frozen=True)
class Inspection:
    """`kind` is `pipeline`, `component`, `variant`, `file`, or `files` for a folder of them."""

    path: Path
    kind: str
    components: tuple[InspectedComponent, ...]
    variant: Variant | None


def inspect(path: Path | str) -> Inspection:
    """Look at a pipeline, a component folder, a variant, or weight files of any kind.

    Raises `CheckpointNotFound`, `NotACheckpoint`, `NotAVariant` or `MalformedFile`.
    """
    place = Path(path)
    if not place.exists():
        raise CheckpointNotFound(f"{visible_path(place)}: no such file or folder")
    if place.is_file():
        return Inspection(place, "file", (_file(place),), None)
    if (place / MANIFEST_NAME).is_file():
        variant = open_variant(place)
        parts = tuple(_of_variant(variant, name) for name in variant.manifest.components)
        return Inspection(place, "variant", parts, variant)
    if (place / "model_index.json").is_file():
        parts = tuple(_folder(folder) for folder in _model_folders(place))
        parts += tuple(_file(file) for file in loose_files(place))
        if parts:
            return Inspection(place, "pipeline", parts, None)
    elif (place / "config.json").is_file() and weights_in(place):
        return Inspection(place, "component", (_folder(place),), None)
    elif place.is_dir() and loose_files(place):
        return Inspection(place, "files", tuple(map(_file, loose_files(place))), None)
    raise NotACheckpoint(
        f"{visible_path(place)}: no Flux checkpoint, component, variant or weight file here"
    )


def _model_folders(pipeline: Path) -> list[Path]:
    """The folders of a pipeline that have weights, in the order of its index."""
    listed = small_json(pipeline / "model_index.json")
    folders = [pipeline / name for name in listed if Path(name).name == name]
    return [each for each in folders if (each / "config.json").is_file() and weights_in(each)]


def _folder(folder: Path) -> InspectedComponent:
    found = in_folder(folder)
    if found.architecture is not None:
        return _component(found.architecture.component, found.architecture.title, found)
    return _component(folder.name, next(iter(found.class_names), "a component"), found)


def _of_variant(variant: Variant, name: str) -> InspectedComponent:
    files = tuple(variant.root / file for file in variant.manifest.components[name].files)
    found = in_folder(variant.root / name, files)
    return _component(name, ARCHITECTURES[name].title, found, variant.manifest.backend)


def _file(file: Path) -> InspectedComponent:
    shown = visible_path(file)
    if file.suffix in PICKLES:
        raise NotACheckpoint(f"{shown}: {PICKLE_ADVICE}")
    if file.suffix not in FORMATS:
        raise NotACheckpoint(f"{shown}: is neither a safetensors nor a GGUF file")
    found = ComponentFiles((file,), (), {}, None, None)
    kind = f"{file.suffix.removeprefix('.')} file"
    said = importance_statements(found.metadata, [entry.name for entry in found.entries])
    seen = _component(file.name, kind, found)
    return seen if said is None else _of_importance(seen, kind, *said)


def _of_importance(
    seen: InspectedComponent, kind: str, writer: str, said: Mapping[str, Any]
) -> InspectedComponent:
    """An importance file, which has the names of a model's layers and none of its weights."""
    return replace(
        seen,
        title=f"{kind}: importance of a model's inputs",
        weights=None,
        quantization="none",
        recognised=Quantization(writer, "importance", said),
        kept=(),
        family=None,
        notes=(),
    )


def _component(
    name: str, title: str, found: ComponentFiles, quantization: str | None = None
) -> InspectedComponent:
    weights = weights_of({entry.name: entry for entry in found.entries}, found.metadata)
    recognised = _of_gguf(found) or recognise_quantization(
        found.quantization, found.quanto_map, weights
    )
    family, notes = None, _notes(found, weights)
    if not found.config:
        title, family, more = _lone(title, weights, found)
        notes += more
    elif found.architecture is FLUX:
        family = _family(found.config)
    return InspectedComponent(
        name,
        title,
        found.files,
        len(found.entries),
        sum(entry.nbytes for entry in found.entries),
        dict(Counter(entry.dtype for entry in found.entries).most_common()),
        _count(weights),
        quantization or _label(recognised),
        recognised,
        _kept(weights),
        family,
        notes,
        found.unopened,
        found.entries,
    )


def _lone(
    title: str, weights: tuple[Weight, ...], found: ComponentFiles
) -> tuple[str, str | None, tuple[str, ...]]:
    """For a file without a config: its title, the family of a Flux transformer, and notes."""
    parts = what_is_in(weight.name for weight in weights)
    title = f"{title}: {', '.join(parts)}" if parts else title
    shapes = {weight.name: weight.shape for weight in weights if weight.shape is not None}
    flux = recognise(shapes)
    notes = tuple(_gguf_notes(found, flux))
    if flux is not None:
        return title, _family(flux.config), (flux.layout.title, *notes)
    rank = lora_rank(shapes) if any(part.startswith("LoRA") for part in parts) else None
    return title, None, (f"rank {rank}", *notes) if rank else notes


def _family(config: Mapping[str, Any]) -> str | None:
    try:
        return family_of(config).title
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _notes(found: ComponentFiles, weights: tuple[Weight, ...]) -> tuple[str, ...]:
    if found.unopened:
        return ("its weights are pickle files, which can run code when opened: not looked at",)
    plain = all(weight.packed is None and weight.numel is not None for weight in weights)
    if plain and found.quantization is not None:
        return ("the weights are stored plain, and quantized when they are loaded",)
    return ()


def _count(weights: Iterable[Weight]) -> int | None:
    total = 0
    for weight in weights:
        if weight.numel is None:
            return None
        total += weight.numel
    return total


def _kept(weights: tuple[Weight, ...]) -> tuple[str, ...]:
    """The modules with a plain matrix, where others are packed."""
    if not any(weight.packed for weight in weights):
        return ()
    return tuple(
        visible(weight.name.removesuffix(".weight"), 200)
        for weight in weights
        if weight.packed is None
        and weight.name.endswith(".weight")
        and weight.shape is not None
        and len(weight.shape) > 1
    )


def _of_gguf(found: ComponentFiles) -> Quantization | None:
    """What a GGUF file says of itself, and its types; None for one of plain weights alone."""
    if not found.entries or not all(entry.is_gguf for entry in found.entries):
        return None
    nbytes: Counter[str] = Counter()
    for entry in found.entries:
        nbytes[entry.dtype] += entry.nbytes
    return Quantization("gguf", scheme(found.metadata, nbytes), statements(found.metadata))


def _gguf_notes(found: ComponentFiles, flux: Recognised | None) -> Iterator[str]:
    """What to beware of in a GGUF file."""
    entries = {entry.name: entry for entry in found.entries}
    said = contradiction(found.metadata, (entry.dtype for entry in found.entries))
    if said:
        yield said
    entry = entries.get(f"{flux.prefix}img_in.weight") if flux else None
    if flux and entry and entry.is_gguf and flux.config["guidance_embeds"]:
        mistaken = mistaken_family(entry.dtype, entry.shape[-1])
        if mistaken:
            yield mistaken


def _label(recognised: Quantization | None) -> str:
    if recognised is None:
        return "none"
    if "architecture" in recognised.settings and recognised.library == "gguf":
        return f"{recognised.settings['architecture']} {recognised.scheme}"
    return recognised.label
