"""T5 in optimum-quanto's own format: the weights, and a map of which modules have which type.

transformers quantizes with quanto but refuses to save the result (`is_serializable`), and opens
such files as if the quantized weights were missing, with random ones in their place. So T5 is what
`optimum.quanto.QuantizedTransformersModel` saves and loads (`models/transformers_models.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

COMPONENT = "text_encoder_2"
#: The file beside the weights (`QuantizedTransformersModel._qmap_name`).
MAP_NAME = "quanto_qmap.json"
#: T5's `_keep_in_fp32_modules`: transformers does not quantize it with quanto, so neither do we.
LEFT_OUT = ".wo"

_SNIPPET = """\
import torch
from diffusers import FluxPipeline
from huggingface_hub import snapshot_download
from optimum.quanto import QuantizedTransformersModel
from transformers import AutoModelForTextEncoding


class QuantizedT5(QuantizedTransformersModel):
    auto_class = AutoModelForTextEncoding


folder = snapshot_download("{repository}")
text_encoder_2 = QuantizedT5.from_pretrained(f"{{folder}}/text_encoder_2")._wrapped
pipe = FluxPipeline.from_pretrained(folder, text_encoder_2=text_encoder_2, dtype=torch.bfloat16)
"""


def snippet(repository: str) -> str:
    """Python that leaves the pipeline in `pipe`; the transformer may be quantized or not."""
    return _SNIPPET.format(repository=repository)


def quantization_map(modules: Sequence[str], qtype: str) -> str:
    """The text of the map, as `QuantizedTransformersModel` writes it."""
    return json.dumps(
        {module: {"weights": qtype, "activations": "none"} for module in modules}, indent=4
    )


def quantize(folder: Path, qtype: str, skipped: Sequence[str], device: str) -> torch.nn.Module:
    """The T5 in `folder`, quantized in memory by quanto."""
    import torch
    from transformers import T5EncoderModel

    model = T5EncoderModel.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    exclude = [f"*{LEFT_OUT}", *skipped]
    quantized = _quantized_t5().quantize(model.to(device), weights=qtype, exclude=exclude)
    wrapped: torch.nn.Module = quantized._wrapped
    return wrapped


def save(model: torch.nn.Module, place: Path) -> None:
    """Save what `quantize` gave."""
    _quantized_t5()(model).save_pretrained(place)
    # huggingface_hub adds a model card without contents; the folder is part of a pipeline.
    (place / "README.md").unlink()


def load(folder: Path) -> torch.nn.Module:
    """The T5 in `folder`, loaded by quanto."""
    wrapped: torch.nn.Module = _quantized_t5().from_pretrained(folder)._wrapped
    return wrapped


def _quantized_t5() -> Any:
    from optimum.quanto import QuantizedTransformersModel
    from transformers import AutoModelForTextEncoding

    return type(
        "QuantizedT5", (QuantizedTransformersModel,), {"auto_class": AutoModelForTextEncoding}
    )
