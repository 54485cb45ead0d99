"""GGUF: llama.cpp's container, with Black Forest Labs' names for the transformer.

What is quantized follows the field's converters (see `docs/architecture.md`): 2-D weights of linear
layers and T5's token embedding, except the transformer's input and output projections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.backends.base import Backend, PlannedTensor, Requirement, Target
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch

#: diffusers' single-file loader splits fused tensors by this width, whatever the config says.
DIFFUSERS_GGUF_WIDTH = 3072

_HIGH_PRECISION = (
    "txt_in.",
    "img_in.",
    "time_in.",
    "vector_in.",
    "guidance_in.",
    "final_layer.",
)

_IMPORTS = """\
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, GGUFQuantizationConfig
from huggingface_hub import snapshot_download
from transformers import T5Config, T5EncoderModel

folder = snapshot_download("{repository}", allow_patterns=["*.json", "*/*", {patterns}])
"""
_TRANSFORMER = """\
transformer = FluxTransformer2DModel.from_single_file(
    f"{{folder}}/{transformer}",
    config=folder,
    subfolder="transformer",
    quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
    dtype=torch.bfloat16,
)
"""
# Without `config=`, transformers builds T5 with ReLU in place of the gated GELU: no error, but
# wrong pictures.
_TEXT_ENCODER_2 = """\
text_encoder_2 = T5EncoderModel.from_pretrained(
    folder,
    gguf_file="{text_encoder_2}",
    config=T5Config.from_pretrained(folder, subfolder="text_encoder_2"),
    dtype=torch.bfloat16,
)
"""
_PIPELINE = """\
pipe = FluxPipeline.from_pretrained(
    folder,
{models}    dtype=torch.bfloat16,
)
"""


@dataclass(frozen=True)
class Gguf(Backend):
    """Quantized weights of one GGML type."""

    container: ClassVar[Literal["safetensors", "gguf"]] = "gguf"
    encodes: ClassVar[str | None] = None

    type_name: str = "Q8_0"
    file_type: str = "MOSTLY_Q8_0"

    @property
    def rows_alone(self) -> bool:
        return True

    @property
    def file_label(self) -> str:
        """What stands in the file's name: the type, and the settings that are not the defaults."""
        return self.type_name + self.options.suffix

    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        if len(target.shape) == 1:
            return _stored(target, "F32", "kept: 1-D")
        if target.kind == "relative bias":
            return _stored(target, "F32", "kept: relative position bias")
        if target.name == "img_in.weight":
            # Never BF16: diffusers would read its bytes a row as channels and load a depth model.
            return _stored(target, "F32", "kept: input projection")
        if target.name.startswith(_HIGH_PRECISION):
            return _stored(target, "BF16", "kept: input or output projection")
        if target.shape[1] % 32:
            return _stored(
                target, "F16", f"fallback: rows of {target.shape[1]} are no multiple of 32"
            )
        return _stored(target, self.type_name, "quantized")

    def plan_skipped(self, target: Target, architecture: Architecture) -> PlannedTensor:
        return _stored(target, "BF16", "kept: skipped as asked")

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        import torch
        from gguf import GGMLQuantizationType, quants

        (stored,) = planned.stored
        values = weight.to("cpu", torch.float32).numpy()
        encoded = quants.quantize(values, GGMLQuantizationType[stored.dtype])
        return {stored.name: torch.from_numpy(encoded)}

    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        import torch
        from gguf import GGMLQuantizationType, quants

        (place,) = planned.stored
        rows = stored[place.name].numpy().reshape(*place.shape[:-1], -1)
        decoded = quants.dequantize(rows, GGMLQuantizationType[place.dtype])
        return torch.from_numpy(decoded)

    def snippet(self, repository: str, files: Mapping[str, str]) -> str:
        loaders = {"transformer": _TRANSFORMER, "text_encoder_2": _TEXT_ENCODER_2}
        models = "".join(f"    {component}={component},\n" for component in files)
        return (
            # Other types may share the repository; their files are not needed.
            _IMPORTS.format(repository=repository, patterns=", ".join(map(_quoted, files.values())))
            + "".join(loaders[component].format(**files) for component in files)
            + _PIPELINE.format(models=models)
        )

    def load(
        self, root: Path, component: str, files: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        import torch

        from fluxconv.converters.load import model_class

        loader = model_class(component)
        (file,) = files
        model: torch.nn.Module
        if component == "transformer":
            from diffusers import GGUFQuantizationConfig

            model = loader.from_single_file(
                str(root / file),
                config=str(root),
                subfolder="transformer",
                quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
                dtype=torch.bfloat16,
                local_files_only=True,
            )
        else:
            config = loader.config_class.from_pretrained(root, subfolder=component)
            model = loader.from_pretrained(
                root, gguf_file=file, config=config, dtype=torch.bfloat16, local_files_only=True
            )
        return model

    def cannot_run(
        self, architecture: Architecture, config: Mapping[str, Any], device: str
    ) -> str | None:
        if architecture.library == "diffusers":
            width = architecture.dimensions(config)["d"]
            if width != DIFFUSERS_GGUF_WIDTH:
                return (
                    f"diffusers opens GGUF transformers of width {DIFFUSERS_GGUF_WIDTH} only, and "
                    f"this one's is {width}"
                )
        return None


def _quoted(text: str) -> str:
    return f'"{text}"'


def _stored(target: Target, type_name: str, reason: str) -> PlannedTensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    count = 1
    for size in target.shape:
        count *= size
    stored = StoredTensor(target.name, type_name, target.shape, count // per_block * block_bytes)
    return PlannedTensor(target, (stored,), reason)


BACKENDS = (
    Gguf(
        name="gguf-q8_0",
        title="GGUF Q8_0, blocks of 32",
        requirement=Requirement("gguf", "0.19"),
        bits=8.5,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu", "cuda"),
        loads_in=("diffusers", "transformers", "ComfyUI-GGUF", "stable-diffusion.cpp"),
        type_name="Q8_0",
        file_type="MOSTLY_Q8_0",
    ),
)
