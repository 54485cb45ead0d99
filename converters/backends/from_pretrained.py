"""What the backends share whose variants `from_pretrained` opens: safetensors in bf16."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

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
