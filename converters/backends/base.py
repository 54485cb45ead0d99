"""What a backend is: data about one scheme of one library, and how it encodes one weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fluxconv.converters import dtypes
from fluxconv.converters.architectures import Architecture
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
    `kept` or `fallback`."""

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
    saved variant.
    """

    container: ClassVar[Literal["safetensors", "gguf"]]

    name: str
    title: str
    requirement: Requirement
    bits: float
    quantizes_on: tuple[Device, ...]
    runs_on: tuple[Device, ...]
    loads_in: tuple[str, ...]

    @abstractmethod
    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        """Decide how `target` is stored."""

    @abstractmethod
    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        """The stored tensors for some rows of a target, by stored name.

        `weight` is float, on the device to encode on. Backends whose targets are made of several
        slices get each slice's rows alone and return bytes that follow one another in the file.
        """

    @abstractmethod
    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        """The weight back from its stored tensors, by the library's own decoder.

        Shape is the target's; float dtype as the decoder returns it.
        """

    @abstractmethod
    def snippet(self, repository: str, files: Mapping[str, str]) -> str:
        """Python that leaves the loaded pipeline in `pipe`, from a Hub repository or a folder."""

    @abstractmethod
    def load(
        self, root: Path, component: str, files: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        """One component of a variant at `root`, loaded by its library alone, in bf16."""

    def quantization_config(self, architecture: Architecture) -> dict[str, Any] | None:
        """What `config.json` gets as `quantization_config`, None for nothing."""
        return None

    def header_metadata(
        self, planned: tuple[PlannedTensor, ...], architecture: Architecture
    ) -> dict[str, str]:
        """The metadata of the component's safetensors headers."""
        return {"format": "pt"}

    def cannot_run(
        self, architecture: Architecture, config: Mapping[str, Any], device: str
    ) -> str | None:
        """Why the library cannot run this component on `device`; None if it can."""
        if device not in self.runs_on:
            return f"{self.requirement.package} runs it on {' and '.join(self.runs_on)} only"
        return None


def plain(name: str, dtype: str, shape: tuple[int, ...]) -> StoredTensor:
    """A stored tensor of an ordinary element type."""
    return StoredTensor(name, dtype, shape, math.prod(shape) * dtypes.itemsize(dtype))


def kept(target: Target, why: str, dtype: str = "BF16") -> PlannedTensor:
    """A target stored as it is, in `dtype`."""
    return PlannedTensor(target, (plain(target.name, dtype, target.shape),), f"kept: {why}")


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
