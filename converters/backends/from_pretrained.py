"""What the backends share whose variants `from_pretrained` opens: safetensors in bf16."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.backends.base import Backend

if TYPE_CHECKING:
    import torch

_SNIPPET = """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("{repository}", dtype=torch.bfloat16)
"""


class FromPretrainedBackend(Backend):
    """A backend whose saved model carries its own `quantization_config`."""

    container: ClassVar[Literal["safetensors", "gguf"]] = "safetensors"

    @abstractmethod
    def library_config(self, architecture: Architecture, skipped: tuple[str, ...]) -> Any:
        """The library's own configuration object for `from_pretrained(quantization_config=...)`."""

    def quantization_config(
        self, architecture: Architecture, skipped: tuple[str, ...]
    ) -> dict[str, Any] | None:
        config: dict[str, Any] = self.library_config(architecture, skipped).to_dict()
        return config

    def library_refuses(self, architecture: Architecture, device: str) -> str | None:
        if device not in self.quantizes_on:
            return f"{self.requirement.package} needs {' or '.join(self.quantizes_on)} for it"
        return None

    def quantize_with_library(
        self, folder: Path, architecture: Architecture, skipped: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        import torch

        from fluxconv.converters.load import model_class

        model: torch.nn.Module = model_class(architecture.component).from_pretrained(
            folder,
            dtype=torch.bfloat16,
            quantization_config=self.library_config(architecture, skipped),
            device_map={"": device} if device != "cpu" else None,
            local_files_only=True,
        )
        return model

    def snippet(self, repository: str, files: Mapping[str, str]) -> str:
        return _SNIPPET.format(repository=repository)

    def load(
        self, root: Path, component: str, files: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        import torch

        from fluxconv.converters.load import model_class

        model: torch.nn.Module = model_class(component).from_pretrained(
            root, subfolder=component, dtype=torch.bfloat16, local_files_only=True
        )
        return model
