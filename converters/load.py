"""Loading a checkpoint or a variant to draw with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import NotACheckpoint
from fluxconv.converters.stored import decode_component
from fluxconv.converters.variant import Variant

if TYPE_CHECKING:
    import torch

    from fluxconv.converters.planning import ComponentPlan


@dataclass(frozen=True)
class Execution:
    """How one component of a variant runs here.

    `native`: the library runs the quantized weights. `decoded`: the library cannot run them on
    this machine (`why`), so they were decoded with its own decoder and run as a plain bf16 model.
    """

    mode: Literal["native", "decoded"]
    why: str = ""


def model_class(component: str) -> Any:
    """The class that opens a component."""
    if component == "transformer":
        from diffusers import FluxTransformer2DModel

        return FluxTransformer2DModel
    from transformers import T5EncoderModel

    return T5EncoderModel


def load_checkpoint(checkpoint: Checkpoint, device: str) -> Any:
    """The source as a `FluxPipeline` in bf16 on `device`.

    Raises `NotACheckpoint` if it is a lone component, which cannot draw.
    """
    import torch
    from diffusers import FluxPipeline

    _require_pipeline(checkpoint.root)
    pipeline = FluxPipeline.from_pretrained(
        checkpoint.root, dtype=torch.bfloat16, local_files_only=True
    )
    return pipeline.to(device)


def load_variant(variant: Variant, device: str) -> tuple[Any, dict[str, Execution]]:
    """A variant as a `FluxPipeline` on `device`, and how each quantized component runs."""
    import torch
    from diffusers import FluxPipeline

    _require_pipeline(variant.root)
    models: dict[str, torch.nn.Module] = {}
    executions: dict[str, Execution] = {}
    for name, plan in variant.component_plans().items():
        why = plan.backend.cannot_run(plan.architecture, plan.config, device)
        if why is None:
            files = tuple(file.name for file in plan.files)
            models[name] = plan.backend.load(variant.root, name, files, device)
            executions[name] = Execution("native")
        else:
            models[name] = load_decoded(variant.root, plan)
            executions[name] = Execution("decoded", why)
    pipeline = FluxPipeline.from_pretrained(
        variant.root, dtype=torch.bfloat16, local_files_only=True, **models
    )
    return pipeline.to(device), executions


def load_decoded(root: Path, plan: ComponentPlan) -> torch.nn.Module:
    """A component with its weights decoded to bf16, as the plain model of its class."""
    import torch

    config = {key: value for key, value in plan.config.items() if key != "quantization_config"}
    kind = model_class(plan.component)
    with torch.device("meta"):
        if plan.architecture.library == "diffusers":
            model: torch.nn.Module = kind.from_config(config)
        else:
            model = kind(kind.config_class.from_dict(config))
    weights = {name: weight.to(torch.bfloat16) for name, weight in decode_component(root, plan)}
    for name, others in plan.architecture.tied.items():
        weights |= dict.fromkeys(others, weights[name])
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _require_pipeline(root: Path) -> None:
    if not (root / "model_index.json").is_file():
        raise NotACheckpoint(
            f"{root}: is a lone component; only a whole pipeline (with model_index.json) can draw"
        )
