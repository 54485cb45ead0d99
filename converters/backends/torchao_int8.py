"""torchao int8 weight-only: one fp32 scale for each row, symmetric.

Stored for each weight, as `torchao.prototype.safetensors.flatten_tensor_state_dict` flattens an
`Int8Tensor`: `_weight_qdata` (int8), `_weight_scale` (fp32), `_weight_zero_point` (int8), and a
JSON text for each tensor in the header's metadata, from which the loader rebuilds the tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.backends.base import (
    KIND_REASONS,
    PlannedTensor,
    Requirement,
    Target,
    kept,
    plain,
)
from fluxconv.converters.backends.from_pretrained import FromPretrainedBackend

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TorchaoInt8(FromPretrainedBackend):
    """`Int8WeightOnlyConfig()` of torchao."""

    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        if target.kind != "linear" or not target.name.endswith(".weight"):
            return kept(target, KIND_REASONS.get(target.kind, target.kind))
        rows = target.shape[0]
        prefix = _prefix(target.name)
        stored = (
            plain(f"{prefix}qdata", "I8", target.shape),
            plain(f"{prefix}scale", "F32", (rows, 1)),
            plain(f"{prefix}zero_point", "I8", (rows, 1)),
        )
        return PlannedTensor(target, stored, "quantized")

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        import torch
        from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        rows, columns = weight.shape
        layer = torch.nn.Linear(columns, rows, bias=False, device="meta")
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        quantize_(layer, Int8WeightOnlyConfig())
        parts, metadata = flatten_tensor_state_dict({planned.name: layer.weight.data})
        if metadata[planned.name] != _tensor_json(planned.target.shape):
            raise RuntimeError(
                f"this torchao describes {planned.name} as {metadata[planned.name]}, which is not "
                "the format this version of fluxconv plans for"
            )
        return dict(parts)

    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

        metadata = {
            planned.name: _tensor_json(planned.target.shape),
            "tensor_names": json.dumps([planned.name]),
        }
        rebuilt, _ = unflatten_tensor_state_dict(dict(stored), metadata)
        decoded: torch.Tensor = rebuilt[planned.name].dequantize()
        return decoded

    def header_metadata(
        self, planned: tuple[PlannedTensor, ...], architecture: Architecture
    ) -> dict[str, str]:
        metadata = {"format": "pt"}
        names = []
        for tensor in planned:
            text = _tensor_json(tensor.target.shape) if tensor.quantized else '{"_type": "Tensor"}'
            for name in (tensor.name, *architecture.tied.get(tensor.name, ())):
                names.append(name)
                metadata[name] = text
        return metadata | {"tensor_names": json.dumps(names)}

    def library_config(self, architecture: Architecture, skipped: tuple[str, ...]) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig

        if architecture.library == "diffusers":
            from diffusers import TorchAoConfig
        else:
            from transformers import TorchAoConfig
        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=list(skipped) or None)


def _prefix(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{module}._{leaf}_"


def _tensor_json(shape: tuple[int, ...]) -> str:
    return json.dumps(
        {
            "_type": "Int8Tensor",
            "_data": {
                "act_quant_kwargs": None,
                "reduce_range": False,
                "block_size": [1, shape[1]],
                "dtype": {"_type": "torch.dtype", "_data": "bfloat16"},
            },
            "_tensor_data_names": ["zero_point", "qdata", "scale"],
        }
    )


BACKENDS = (
    TorchaoInt8(
        name="torchao-int8",
        title="torchao int8 weight-only, one scale a row",
        requirement=Requirement("torchao", "0.18"),
        bits=8.0,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu", "cuda"),
        loads_in=("diffusers", "transformers"),
    ),
)
