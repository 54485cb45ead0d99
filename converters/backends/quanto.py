"""optimum-quanto: weights alone, in 8, 4 or 2 bits.

The transformer is what diffusers saves and loads. T5 is in quanto's own format (`quanto_t5`), as
transformers saves no model that quanto quantized. `quanto_weights` knows the tensors of one weight.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.converters.architectures import Architecture, TensorSpec
from fluxconv.converters.backends import quanto_t5
from fluxconv.converters.backends.base import (
    KIND_REASONS,
    Device,
    PlannedTensor,
    Requirement,
    Target,
    kept,
    plain,
)
from fluxconv.converters.backends.from_pretrained import FromPretrainedBackend
from fluxconv.converters.backends.quanto_weights import BitWeights, ByteWeights, QuantoWeights

if TYPE_CHECKING:
    import torch

#: What `QLinear` keeps for quantized activations; 1 where they are not quantized.
_ACTIVATION_SCALES = ("input_scale", "output_scale")
_COMPILERS = {"cpu": "a C++ compiler", "cuda": "the CUDA toolkit"}


@dataclass(frozen=True, kw_only=True)
class Quanto(FromPretrainedBackend):
    """One quanto type: `config_name` is its name in diffusers' `QuantoConfig`.

    `compiles` says which devices quanto compiles an extension for before it runs the weights, and
    `fault` what is wrong on those that are not in `runs_on`. Rows never stand alone here, as two of
    each weight's tensors hold a single value; `QuantoWeights` takes them in pieces itself.
    """

    config_name: str
    weights: QuantoWeights
    compiles: tuple[Device, ...] = ()
    fault: str = ""

    # What is stored ----------------------------------------------------------------------------

    def skipped(self, specs: Sequence[TensorSpec], architecture: Architecture) -> tuple[str, ...]:
        asked = super().skipped(specs, architecture)
        if architecture.library == "transformers":
            return asked
        # diffusers compares `modules_to_not_convert` with the last part of a module's name alone.
        ends = _last_parts(asked)
        return tuple(s.module for s in specs if s.kind == "linear" and _last_part(s.module) in ends)

    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        if target.kind != "linear" or not target.name.endswith(".weight"):
            return kept(target, KIND_REASONS.get(target.kind, target.kind))
        module = _module(target)
        if architecture.library == "transformers" and module.endswith(quanto_t5.LEFT_OUT):
            return kept(target, "T5 wo, which transformers leaves out")
        scales = (plain(f"{module}.{name}", "BF16", ()) for name in _ACTIVATION_SCALES)
        return PlannedTensor(
            target, (*self.weights.parts(target.name, target.shape), *scales), "quantized"
        )

    def plan_skipped(self, target: Target, architecture: Architecture) -> PlannedTensor:
        if any(re.search(pattern, _module(target)) for pattern in self.options.skip):
            return super().plan_skipped(target, architecture)
        end = _last_part(_module(target))
        return kept(target, f"skipped with every other '{end}', which diffusers cannot tell apart")

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        module = _module(planned.target)
        return self.weights.encode(weight, planned.name) | {
            f"{module}.{name}": weight.new_ones(()) for name in _ACTIVATION_SCALES
        }

    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        return self.weights.decode(stored, planned.name, planned.target.shape)

    def quantization_config(
        self, architecture: Architecture, skipped: tuple[str, ...]
    ) -> dict[str, Any] | None:
        if architecture.library == "transformers":
            return None
        return super().quantization_config(architecture, skipped)

    def extra_files(
        self, planned: tuple[PlannedTensor, ...], architecture: Architecture
    ) -> dict[str, str]:
        if architecture.library == "diffusers":
            return {}
        modules = [_module(tensor.target) for tensor in planned if tensor.quantized]
        return {quanto_t5.MAP_NAME: quanto_t5.quantization_map(modules, self.weights.qtype)}

    # Loading -----------------------------------------------------------------------------------

    def snippet(self, repository: str, files: Mapping[str, str]) -> str:
        if quanto_t5.COMPONENT in files:
            return quanto_t5.snippet(repository)
        return super().snippet(repository, files)

    def load(
        self, root: Path, component: str, files: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        if component == quanto_t5.COMPONENT:
            return quanto_t5.load(root / component)
        # diffusers leaves the weights as stored; moving them picks the kernel that runs them.
        return super().load(root, component, files, device).to(device)

    def loader(self, architecture: Architecture) -> str:
        if architecture.component == quanto_t5.COMPONENT:
            return "optimum.quanto.QuantizedTransformersModel.from_pretrained"
        return super().loader(architecture)

    def cannot_run(
        self, architecture: Architecture, config: Mapping[str, Any], device: str
    ) -> str | None:
        if device not in self.runs_on:
            return self.fault
        if device in self.compiles and not _can_compile(device):
            return (
                "optimum-quanto compiles its kernels when they are first used, which takes ninja "
                f"and {_COMPILERS[device]}"
            )
        return None

    # The library's own way ---------------------------------------------------------------------

    def library_config(self, architecture: Architecture, skipped: tuple[str, ...]) -> Any:
        from diffusers import QuantoConfig

        return QuantoConfig(self.config_name, modules_to_not_convert=_last_parts(skipped) or None)

    def quantize_with_library(
        self, folder: Path, architecture: Architecture, skipped: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        if architecture.library == "transformers":
            return quanto_t5.quantize(folder, self.weights.qtype, skipped, device)
        return super().quantize_with_library(folder, architecture, skipped, device)

    def save_with_library(
        self, model: torch.nn.Module, place: Path, architecture: Architecture
    ) -> None:
        if architecture.library == "transformers":
            quanto_t5.save(model, place)
        else:
            super().save_with_library(model, place, architecture)


def _module(target: Target) -> str:
    return target.name.removesuffix(".weight")


def _last_part(module: str) -> str:
    return module.rsplit(".", 1)[-1]


def _last_parts(modules: Sequence[str]) -> list[str]:
    """Each once, in the order of `modules`."""
    return list(dict.fromkeys(map(_last_part, modules)))


def _can_compile(device: str) -> bool:
    """Whether torch finds what it builds an extension for `device` with."""
    if device == "cpu":
        return bool(shutil.which("ninja") and shutil.which(os.environ.get("CXX", "c++")))
    # Where there is no GPU, nothing is known about the machine that will have one. Without a driver
    # there is none, and torch need not be imported to say so.
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return True
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    return not torch.cuda.is_available() or bool(shutil.which("ninja") and CUDA_HOME)


_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
_REQUIREMENT = Requirement("optimum-quanto", "0.2.7")

BACKENDS = (
    Quanto(
        name="quanto-int8",
        title="optimum-quanto int8, one scale a row",
        requirement=_REQUIREMENT,
        bits=8.0,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu", "cuda"),
        loads_in=("diffusers", "optimum-quanto"),
        config_name="int8",
        weights=ByteWeights("qint8", "I8"),
    ),
    Quanto(
        name="quanto-fp8",
        title="optimum-quanto float8 (e4m3fn), one scale a row",
        requirement=_REQUIREMENT,
        bits=8.0,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu",),
        loads_in=("diffusers", "optimum-quanto"),
        config_name="float8",
        weights=ByteWeights("qfloat8_e4m3fn", "F8_E4M3"),
        # `MarlinF8QBytesLinearFunction` takes a bias and does not add it.
        fault="optimum-quanto's fp8 kernel for GPUs leaves out biases; it is right on a CPU only",
    ),
    Quanto(
        name="quanto-int4",
        title="optimum-quanto int4, groups of 128",
        requirement=_REQUIREMENT,
        bits=4.25,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu", "cuda"),
        loads_in=("diffusers", "optimum-quanto"),
        config_name="int4",
        weights=BitWeights("qint4", 4),
        compiles=("cpu", "cuda"),
    ),
    Quanto(
        name="quanto-int2",
        title="optimum-quanto int2, groups of 128",
        requirement=_REQUIREMENT,
        bits=2.25,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu", "cuda"),
        loads_in=("diffusers", "optimum-quanto"),
        config_name="int2",
        weights=BitWeights("qint2", 2),
        compiles=("cpu", "cuda"),
    ),
)
