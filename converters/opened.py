"""A checkpoint as it was opened: its components, and the files that variants take from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.component import Component
from fluxconv.converters.errors import UsageError, nearest
from fluxconv.converters.sources.folder import PICKLES

#: The folders of a pipeline that variants carry over unchanged.
CARRIED = ("scheduler", "tokenizer", "tokenizer_2", "text_encoder", "vae")
#: Files beside them that belong to the checkpoint: its licence, and its own validation settings.
CARRIED_FILES = ("LICENSE.md", "LICENSE", "LICENSE.txt", "NOTICE", "validation.yaml")
#: Weights in forms that the libraries leave alone where there are safetensors; not carried over.
OTHER_WEIGHTS = PICKLES | {".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".gguf"}


class Opening(NamedTuple):
    """What `open_checkpoint` was given, to open the same once more in another process."""

    path: str
    base: str | None = None
    allow_requantize: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A Flux checkpoint on this machine.

    `root` is the pipeline's folder, which is that of the base if a part was replaced, or the lone
    component. `name` is what its variants are called after; `source` is what a reader would ask the
    Hub for (a repository id, or the folder's name), `revision` the commit if it came from the Hub;
    `front_matter` is the metadata of its README, empty if there is none. `notes` are sentences that
    the user should read, `base` is the pipeline that has the other parts, `requantized` the backend
    of the variant that this is.
    """

    root: Path
    name: str
    source: str
    revision: str | None
    components: Mapping[str, Component]
    front_matter: Mapping[str, Any]
    opening: Opening
    notes: tuple[str, ...] = ()
    base: str | None = None
    requantized: str | None = None

    @property
    def is_pipeline(self) -> bool:
        """Whether this is a whole pipeline and not a lone component."""
        return (self.root / "model_index.json").is_file()

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """Every file that is read or carried over for any variant, by the name that a manifest
        gives it."""
        found = self._carried_always()
        for component in self.components.values():
            found |= {**component.carried, **component.files}
        return found

    def source_files(self, components: Collection[str]) -> dict[str, Path]:
        """The weight and config files that are read to quantize `components`, by the name that a
        manifest gives them."""
        return {
            name: path
            for component in components
            for name, path in self.components[component].files.items()
        }

    def carried_files(self, quantized: Collection[str] = tuple(ARCHITECTURES)) -> dict[str, Path]:
        """Everything that a variant takes over unchanged where `quantized` are quantized, by its
        name in the variant, sorted.

        Raises `UsageError` if a component that is not quantized cannot be taken over as it is.
        """
        if not self.is_pipeline:
            return {}
        found = self._carried_always()
        for name, component in self.components.items():
            if name in quantized:
                continue
            # It travels as it is, so the variant stays a whole pipeline.
            if not component.carried:
                raise UsageError(
                    f"{component.path}: is not stored as {component.architecture.library} would "
                    f"save it, so a variant cannot take it over as it is; quantize {name}, too"
                )
            found |= component.carried
        return dict(sorted(found.items()))

    def _carried_always(self) -> dict[str, Path]:
        if not self.is_pipeline:
            return {}
        paths = [self.root / "model_index.json"]
        paths += [self.root / name for name in CARRIED_FILES if (self.root / name).is_file()]
        for folder in CARRIED:
            paths += [
                path
                for path in (self.root / folder).rglob("*")
                if path.is_file()
                and path.suffix not in OTHER_WEIGHTS
                and not any(p.startswith(".") for p in path.parts[-2:])
            ]
        return {path.relative_to(self.root).as_posix(): path for path in paths}


def choose_components(checkpoint: Checkpoint, wanted: tuple[str, ...]) -> tuple[Component, ...]:
    """The components to quantize: those wanted, or all that the checkpoint has."""
    for name in wanted:
        if name in CARRIED:
            raise UsageError(
                f"--component {name}: is carried over as it is; {' and '.join(ARCHITECTURES)} are "
                "what can be quantized"
            )
        if name not in checkpoint.components:
            close = nearest(name, checkpoint.components)
            raise UsageError(f"{checkpoint.root}: has no component '{name}' to quantize{close}")
    return tuple(
        component
        for name, component in checkpoint.components.items()
        if not wanted or name in wanted
    )
