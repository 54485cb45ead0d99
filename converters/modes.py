"""Ways to run a pipeline: all of it on the device, offloaded to main memory, compiled.

What each does, and with which settings, is what the guides of diffusers give: "Memory and
offloading" (`optimization/memory`) and "Compile and offloading quantized models"
(`optimization/speed-memory-optims`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fluxconv.converters.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

Offload = Literal["model", "group"]
#: The guide's limit on how often one function is compiled anew; torch's own is 8, and offloaded
#: blocks need more.
_RECOMPILATIONS = 1000


@dataclass(frozen=True)
class Mode:
    """One way to run a pipeline. `offload` moves weights to the GPU when they are needed: `model`
    one component at a time, `group` one layer at a time; None keeps all of them there."""

    name: str
    title: str
    offload: Offload | None = None
    compiles: bool = False

    def cannot_run(self, device: str) -> str | None:
        """Why it does not work on `device` here, one sentence; None if it does."""
        if self.offload and device == "cpu":
            return "offloading moves weights between main memory and a GPU, and this runs on a CPU"
        return _cannot_compile(device) if self.compiles else None

    def apply(self, pipeline: Any, device: str) -> None:
        """Bring a pipeline whose weights are where they were loaded to `device`, in this way."""
        _PLACE[self.offload](pipeline, device)
        if self.compiles:
            if device == "cpu":
                _align(pipeline.transformer)
            _compile(pipeline)


def _whole(pipeline: Any, device: str) -> None:
    pipeline.to(device)


def _offload_model(pipeline: Any, device: str) -> None:
    pipeline.enable_model_cpu_offload(device=device)


def _offload_group(pipeline: Any, device: str) -> None:
    import torch

    pipeline.enable_group_offload(
        onload_device=torch.device(device),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        # The next layer travels while this one computes.
        use_stream=True,
        non_blocking=True,
    )


_PLACE: Mapping[Offload | None, Callable[[Any, str], None]] = {
    None: _whole,
    "model": _offload_model,
    "group": _offload_group,
}


def _compile(pipeline: Any) -> None:
    import torch._dynamo

    # bitsandbytes gives tensors whose shape depends on values.
    torch._dynamo.config.capture_dynamic_output_shape_ops = True
    torch._dynamo.config.cache_size_limit = _RECOMPILATIONS
    # Block by block: as fast as the whole, in a seventh of the time to compile ("torch.compile and
    # Diffusers: A Hands-On Guide to Peak Performance"), and what diffusers' own tests do with
    # offloading. Not `fullgraph`: what breaks the graph (hooks that move or cast weights) is to
    # cost a little speed, not the picture.
    pipeline.transformer.compile_repeated_blocks()


def _align(model: torch.nn.Module) -> None:
    """Copy quantized weights to where an allocator puts them.

    On a CPU torch compiles int8 weights to `_weight_int8pack_mm`, which ends the process unless
    they lie on a multiple of 16 bytes, and in a file that is mapped they need not (torch 2.13).
    """
    import torch
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if is_traceable_wrapper_subclass(weight):
                copy = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
                setattr(module, name, copy)


def _cannot_compile(device: str) -> str | None:
    if device == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return "torch compiles for a CPU with a C++ compiler, and finds none (CXX or g++)"
        return None
    from torch.utils._triton import has_triton

    return None if has_triton() else "torch compiles for a GPU with triton, which is not here"


#: The mode that nothing else was asked for.
PLAIN = "plain"
#: Every mode by its name: the rows of the guide's tables.
MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(PLAIN, "all of it on the device"),
        Mode("offload-model", "one component at a time on the GPU", offload="model"),
        Mode("offload-group", "one layer at a time on the GPU", offload="group"),
        Mode("compile", "the transformer's blocks compiled", compiles=True),
        Mode(
            "offload-model-compile",
            "one component at a time on the GPU, compiled",
            offload="model",
            compiles=True,
        ),
        Mode(
            "offload-group-compile",
            "one layer at a time on the GPU, compiled",
            offload="group",
            compiles=True,
        ),
    )
}


def get_mode(name: str) -> Mode:
    """The mode of that name; raises `UsageError` with the nearest ones."""
    if name not in MODES:
        raise UsageError(f"unknown mode '{name}'{nearest(name, MODES)}")
    return MODES[name]


def find_mode(offload: Offload | None, *, compiles: bool) -> Mode:
    """The mode that offloads so and compiles or not."""
    return next(m for m in MODES.values() if (m.offload, m.compiles) == (offload, compiles))
