"""What a backend is: data about one scheme of one library, and how it encodes one weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from fluxconv.converters import dtypes
from fluxconv.converters.architectures import Architecture, TensorSpec
from fluxconv.converters.backends.options import Options, parse_options
from fluxconv.converters.errors import MissingRequirement
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Requirement:
    """A library and the oldest version whose format the backend writes."""

    package: str
    minimum: str

    @property
    def installed(self) -> str | None:
        """The installed version, or None."""
        return _installed(self.package)

    @property
    def fix(self) -> str:
        """The command that would install it."""
        return f'pip install "{self.package}>={self.minimum}"'

    @property
    def satisfied(self) -> bool:
        """Whether it is installed and new enough."""
        from packaging.version import Version

        return self.installed is not None and Version(self.installed) >= Version(self.minimum)


@dataclass(frozen=True)
class SourceSlice:
    """Rows `start` to `stop` of one source tensor."""

    tensor: str
    start: int
    stop: int


@dataclass(frozen=True)
class Target:
    """One tensor of the container before the backend decided how to store it.

    `slices` are the row ranges of the source that make it up, one below the other.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    slices: tuple[SourceSlice, ...]


@dataclass(frozen=True)
class PlannedTensor:
    """A target and the decision on it: what is stored, and why. `reason` starts with `quantized`,
    `converted`, `kept` or `fallback`."""

    target: Target
    stored: tuple[StoredTensor, ...]
    reason: str

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def quantized(self) -> bool:
        return not self.reason.startswith("kept")

    @property
    def nbytes(self) -> int:
        return sum(stored.nbytes for stored in self.stored)


@dataclass(frozen=True)
class Backend(ABC):
    """One quantization scheme. An instance is a row of the registry.

    `bits` is the nominal number of bits a quantized weight takes, scales included.
    `quantizes_on` lists the devices that can encode, `runs_on` those on which the library runs a
    saved variant. `options` are the user's settings; a backend with settings of its own gives the
    field a default of its own class.
    """

    container: ClassVar[Literal["safetensors", "gguf"]]
    #: What weights are cast to before they are encoded; None: as the source has them.
    encodes: ClassVar[str | None] = "BF16"

    name: str
    title: str
    requirement: Requirement
    bits: float
    quantizes_on: tuple[Device, ...]
    runs_on: tuple[Device, ...]
    loads_in: tuple[str, ...]
    options: Options = Options()  # noqa: RUF009 - frozen

    # What it is --------------------------------------------------------------------------------

    def configured(self, given: Mapping[str, Any]) -> Self:
        """This backend with the settings `given`; raises `UsageError` for one that it lacks."""
        return replace(self, options=parse_options(type(self.options), given, self.name))

    @property
    def label(self) -> str:
        """Its name, and the settings that are not the defaults: what variants are called after."""
        return self.name + self.options.suffix

    def lack(self) -> str | None:
        """What this machine lacks for its settings, beside its library, and how to mend it."""
        return None

    @property
    def rows_alone(self) -> bool:
        """Whether every row is encoded without regard to the others, and each stored tensor holds
        the same number of bytes for each row, row after row. Such weights are encoded in pieces."""
        return False

    def preparations(
        self, tensors: Sequence[PlannedTensor], device: str
    ) -> Mapping[str, Callable[[], object]]:
        """What is to be done once in a process before these are encoded, by what to call it; each
        may take seconds."""
        return {}

    # What is stored ----------------------------------------------------------------------------

    def skipped(self, specs: Sequence[TensorSpec], architecture: Architecture) -> tuple[str, ...]:
        """The linear modules that the user wants kept in high precision, in the order of `specs`.

        A library that can only skip by less than a module's full name widens the list.
        """
        return tuple(s.module for s in specs if s.kind == "linear" and self.asks_to_skip(s))

    def asks_to_skip(self, spec: TensorSpec) -> bool:
        """Whether the user's own patterns match this linear module."""
        return self.options.skips(spec)

    @abstractmethod
    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        """Decide how `target`, which is not skipped, is stored."""

    def plan_skipped(self, target: Target, architecture: Architecture) -> PlannedTensor:
        """How a target is stored that the user wants kept in high precision."""
        return kept(target, SKIPPED)

    @abstractmethod
    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        """The stored tensors for a target, or for some of its rows if `rows_alone`, by stored name.

        `weight` has the type `encodes` and is on the device to encode on. A stored tensor that is
        not `settled` in the plan may be shorter than planned.
        """

    @abstractmethod
    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        """The weight back from its stored tensors, by the library's own decoder.

        Shape is the target's; float dtype as the decoder returns it.
        """

    def quantization_config(
        self, architecture: Architecture, skipped: tuple[str, ...]
    ) -> dict[str, Any] | None:
        """What `config.json` gets as `quantization_config`, None for nothing."""
        return None

    def header_metadata(
        self, planned: tuple[PlannedTensor, ...], architecture: Architecture
    ) -> dict[str, str]:
        """The metadata of the component's safetensors headers."""
        return {"format": "pt"}

    def extra_files(
        self, planned: tuple[PlannedTensor, ...], architecture: Architecture
    ) -> dict[str, str]:
        """Text files that the library puts into the component's folder beside its config."""
        return {}

    # Loading -----------------------------------------------------------------------------------

    @abstractmethod
    def snippet(self, repository: str, files: Mapping[str, str]) -> str:
        """Python that leaves the loaded pipeline in `pipe`, from a Hub repository or a folder."""

    @abstractmethod
    def load(
        self, root: Path, component: str, files: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        """One component of a variant at `root`, loaded by its library alone, in bf16."""

    def loader(self, architecture: Architecture) -> str:
        """The public call that opens a component, by its full name."""
        return f"{architecture.library}.{architecture.class_name}.from_pretrained"

    def cannot_run(
        self, architecture: Architecture, config: Mapping[str, Any], device: str
    ) -> str | None:
        """Why the library cannot run this component on `device`; None if it can."""
        if device not in self.runs_on:
            return f"{self.requirement.package} runs it on {' and '.join(self.runs_on)} only"
        return None

    # The library's own way: the judge of ours, and `--engine library` --------------------------

    def library_refuses(self, architecture: Architecture, device: str) -> str | None:
        """Why the library itself cannot quantize this component on `device`; None if it can."""
        return f"no library quantizes to {self.name}"

    def quantize_with_library(
        self, folder: Path, architecture: Architecture, skipped: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        """The component in `folder` (diffusers or transformers layout, bf16), quantized in memory
        by its library alone. Call `library_refuses` first."""
        raise MissingRequirement(f"{self.name}: {self.library_refuses(architecture, device)}")

    def save_with_library(
        self, model: torch.nn.Module, place: Path, architecture: Architecture
    ) -> None:
        """Save what `quantize_with_library` made as the library does."""
        model.save_pretrained(place)  # type: ignore[operator]


def plain(name: str, dtype: str, shape: tuple[int, ...]) -> StoredTensor:
    """A stored tensor of an ordinary element type."""
    return StoredTensor(name, dtype, shape, math.prod(shape) * dtypes.itemsize(dtype))


def kept(target: Target, why: str, dtype: str = "BF16") -> PlannedTensor:
    """A target stored as it is, in `dtype`."""
    return PlannedTensor(target, (plain(target.name, dtype, target.shape),), f"kept: {why}")


#: Why a target stays in high precision that could have been quantized.
SKIPPED = "skipped as asked"
#: Why a target that is not a linear layer's weight stays in high precision.
KIND_REASONS = {
    "bias": "bias",
    "norm": "norm",
    "embedding": "embedding",
    "relative bias": "relative position bias",
}


@cache
def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
