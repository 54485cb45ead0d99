"""What drawing with a checkpoint or a variant takes of memory, and a refusal before it is tried.

Weights are counted from headers and configs, as they lie in memory once loaded: as stored where the
library keeps them so, else 2 bytes each. What the models compute with meanwhile is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.checkpoint import Checkpoint, read_json
from fluxconv.converters.component import Component
from fluxconv.converters.errors import NotEnoughMemory
from fluxconv.converters.load import execution_of, require_pipeline
from fluxconv.converters.modes import PLAIN, Mode, find_mode, get_mode
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.safetensors_header import read_header
from fluxconv.converters.variant import Variant
from fluxconv.validators.machine import free_gpu_memory, free_memory
from fluxconv.validators.report import Settings

_BF16, _FP32 = 2, 4
#: What the libraries take beside the models while the tiny Flux draws, once they are imported;
#: measured: 60 MB resident, 280 MB of address space.
_LIBRARIES = 100_000_000
_ADDRESS_SPACE = 300_000_000
#: Copies of the VAE's widest picture that are there at once: measured with FLUX.1's VAE 4 to 5 on a
#: CPU (512 and 256 pixels); on a GPU 9.4 by the guide's peak in bf16 (1024 pixels).
_VAE_COPIES = {"cpu": 6, "cuda": 10}
#: Copies of the transformer's hidden states, by the guide's peak with one component at a time.
_HIDDEN_COPIES = 42


@dataclass(frozen=True)
class Part:
    """Bytes of one model of a pipeline: `weights` once loaded, `loading` at most on the way there,
    `work` beside them while it runs, `layer` its largest tensor."""

    name: str
    weights: int
    loading: int
    layer: int
    work: int = 0


@dataclass(frozen=True)
class Need:
    """What drawing takes: `main` memory, and `gpu` memory where there is a GPU."""

    main: int
    gpu: int = 0


def require_memory(
    opened: Checkpoint | Variant, device: str, settings: Settings, mode: str = PLAIN
) -> None:
    """Raise `NotEnoughMemory` if drawing with `settings` in this mode would take more memory than
    is free; the sentence gives both numbers and a way out. Raises `NotACheckpoint` for a lone
    component. Call it before anything is loaded."""
    import_libraries()  # what they take must be taken before what is left is looked at
    parts = pipeline_parts(opened, device, settings)
    chosen = get_mode(mode)
    need = needed(parts, device, chosen)
    name = opened.name
    if device != "cpu" and need.gpu > (free := free_gpu_memory()):
        raise NotEnoughMemory(
            f"{_takes(name, settings, need.gpu, 'GPU memory', parts)}, and {_size(free)} is free; "
            + _way_out(parts, device, chosen, free)
        )
    if need.main > (free := free_memory(_ADDRESS_SPACE)):
        raise NotEnoughMemory(
            f"{_takes(name, settings, need.main, 'main memory', parts)}, and {_size(free)} is free;"
            " end other programs, draw smaller pictures, or take a variant of fewer bits"
        )


def import_libraries() -> None:
    """Import what every pipeline needs: seconds, and 400 MB."""
    from diffusers import FluxPipeline  # noqa: F401
    from transformers import CLIPTextModel, T5EncoderModel  # noqa: F401


def needed(parts: tuple[Part, ...], device: str, mode: Mode) -> Need:
    """What these parts take together in this mode."""
    weights = sum(part.weights for part in parts)
    work = max(part.work for part in parts)
    passing = max(max(0, part.loading - part.weights) for part in parts)
    if device == "cpu":
        return Need(_LIBRARIES + weights + max(work, passing))
    # Weights that are only moved to the GPU are read from their files on the way, which takes no
    # memory that the system could not have back.
    main = {
        None: passing,
        "model": weights + passing,
        # Memory that a GPU copies from by itself is a second copy: the guide's rule.
        "group": 2 * weights,
    }
    gpu = {
        None: weights + work,
        "model": max(part.weights + part.work for part in parts),
        # A layer computes while the next one arrives.
        "group": max(2 * part.layer + part.work for part in parts),
    }
    return Need(_LIBRARIES + main[mode.offload], gpu[mode.offload])


def pipeline_parts(
    opened: Checkpoint | Variant, device: str, settings: Settings
) -> tuple[Part, ...]:
    """Every model of the pipeline on `device`; raises `NotACheckpoint` for a lone component."""
    require_pipeline(opened)
    if isinstance(opened, Variant):
        plans = opened.component_plans()
        found = {
            name: quantized_part(plan, execution_of(plan, device).mode == "native")
            for name, plan in plans.items()
        }
        configs = {name: plan.config for name, plan in plans.items()}
    else:
        found = {name: source_part(component) for name, component in opened.components.items()}
        configs = {name: component.config for name, component in opened.components.items()}
    for folder in sorted(path for path in opened.root.iterdir() if path.is_dir()):
        if folder.name not in found and any(folder.glob("*.safetensors")):
            found[folder.name] = _carried(folder)
    config = configs.get("transformer") or read_json(opened.root / "transformer" / "config.json")
    work = dict(_work(opened.root, config, device, settings))
    return tuple(replace(part, work=work.get(part.name, 0)) for part in found.values())


def quantized_part(plan: ComponentPlan, native: bool) -> Part:
    """A component of a variant, as its library keeps it, or decoded to bf16."""
    plain = _plain(plan.component, plan.architecture, plan.config)
    stored = max(tensor.nbytes for tensor in plan.tensors)
    if not native:
        return plain
    if plan.backend.container == "gguf" and plan.architecture.library == "transformers":
        return plain  # transformers decodes what it opens
    own_loader = plan.backend.loader(plan.architecture).startswith(plan.architecture.library)
    if own_loader and plan.backend.container != "gguf" and plan.quantization_config is None:
        # Nothing tells the library that it is quantized: it is opened as bf16, and cast after that.
        return Part(plan.component, plan.nbytes, plain.weights, plain.layer)
    return Part(plan.component, plan.nbytes, plan.nbytes + stored, stored)


def source_part(component: Component) -> Part:
    """A component of a source, in bf16."""
    plain = _plain(component.name, component.architecture, component.config)
    if component.carried:
        return Part(plain.name, plain.weights, plain.weights, plain.layer)
    return plain


def _plain(name: str, architecture: Architecture, config: Mapping[str, Any]) -> Part:
    """A bf16 model put together from decoded weights, two of them in fp32 at a time."""
    sizes = [spec.numel for spec in architecture.specs(config)]
    weights = _BF16 * sum(sizes)
    return Part(name, weights, weights + 2 * _FP32 * max(sizes), _BF16 * max(sizes))


def _carried(folder: Path) -> Part:
    headers = [read_header(file) for file in folder.glob("*.safetensors")]
    sizes = [math.prod(tensor.shape) for header in headers for tensor in header.tensors]
    weights = _BF16 * sum(sizes)
    return Part(folder.name, weights, weights, _BF16 * max(sizes))


def _work(
    folder: Path, config: Mapping[str, Any], device: str, settings: Settings
) -> Iterator[tuple[str, int]]:
    """What the largest models compute with, by component."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    vae = read_json(folder / "vae" / "config.json")
    channels = vae["block_out_channels"]
    scale = 2 ** (len(channels) - 1)
    # A token is 2 x 2 latents.
    tokens = (settings.height // scale // 2) * (settings.width // scale // 2)
    tokens += settings.max_sequence_length
    yield "transformer", _HIDDEN_COPIES * tokens * width * _BF16
    # The last upsampling brings the channels of the level before to full size.
    widest = channels[min(1, len(channels) - 1)]
    copies = _VAE_COPIES[device]
    yield "vae", copies * settings.height * settings.width * widest * _BF16


def _takes(name: str, settings: Settings, nbytes: int, kind: str, parts: tuple[Part, ...]) -> str:
    largest = sorted(parts, key=lambda part: -part.weights)[:2]
    weights = ", ".join(f"{part.name} {_size(part.weights)}" for part in largest)
    return (
        f"{name}: drawing {settings.width} x {settings.height} pixels takes about {_size(nbytes)} "
        f"of {kind} ({weights})"
    )


def _way_out(parts: tuple[Part, ...], device: str, mode: Mode, free: int) -> str:
    """What to do about too little GPU memory: the first way to offload with which it is enough."""
    for offload in ("model", "group"):
        other = find_mode(offload, compiles=mode.compiles)
        gpu = needed(parts, device, other).gpu
        if gpu <= free:
            return f"give --offload {offload}, with which {_size(gpu)} are enough"
    return "draw smaller pictures, as not even --offload group would be enough"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.0f} MB"
