"""Python that loads a pipeline whose transformer, or T5 encoder, or both, are GGUF files."""

from __future__ import annotations

from collections.abc import Mapping

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


def snippet(repository: str, files: Mapping[str, str]) -> str:
    """Leaves the pipeline in `pipe`; `files` are names in the repository by component."""
    loaders = {"transformer": _TRANSFORMER, "text_encoder_2": _TEXT_ENCODER_2}
    models = "".join(f"    {component}={component},\n" for component in files)
    return (
        # Other types may share the repository; their files are not needed.
        _IMPORTS.format(repository=repository, patterns=", ".join(map(_quoted, files.values())))
        + "".join(loaders[component].format(**files) for component in files)
        + _PIPELINE.format(models=models)
    )


def _quoted(text: str) -> str:
    return f'"{text}"'
