"""Loading a checkpoint or a variant to draw with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import NotACheckpoint
from fluxconv.converters.loading_code import open_by_code
from fluxconv.converters.modes import PLAIN, get_mode
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


def load_checkpoint(checkpoint: Checkpoint, device: str, mode: str = PLAIN) -> Any:
    """The source as a `FluxPipeline` in bf16, ready to run on `device` in this mode (see `modes`).

    Components that the libraries cannot open where and as they are (single files, float8, quantized
    ones) are put together from their weights. Raises `NotACheckpoint` for a lone component, which
    cannot draw.
    """
    import torch
    from diffusers import FluxPipeline

    require_pipeline(checkpoint)
    models = {
        name: _assembled(component.architecture, component.config, component.weights())
        for name, component in checkpoint.components.items()
        if not component.carried or component.path != checkpoint.root / name
    }
    pipeline = FluxPipeline.from_pretrained(
        checkpoint.root, dtype=torch.bfloat16, local_files_only=True, **models
    )
    get_mode(mode).apply(pipeline, device)
    return pipeline


def load_variant(
    variant: Variant, device: str, mode: str = PLAIN
) -> tuple[Any, dict[str, Execution]]:
    """A variant as a `FluxPipeline`, ready to run on `device` in this mode, and how each quantized
    component runs."""
    import torch
    from diffusers import FluxPipeline

    require_pipeline(variant)
    plans = variant.component_plans()
    executions = {name: execution_of(plan, device) for name, plan in plans.items()}
    if all(execution.mode == "native" for execution in executions.values()):
        # The very lines that the card tells its readers to run.
        pipeline = open_by_code(variant)
    else:
        models = {
            name: _opened(variant.root, plan, executions[name], device)
            for name, plan in plans.items()
        }
        pipeline = FluxPipeline.from_pretrained(
            variant.root, dtype=torch.bfloat16, local_files_only=True, **models
        )
    get_mode(mode).apply(pipeline, device)
    return pipeline, executions


def _opened(root: Path, plan: ComponentPlan, how: Execution, device: str) -> torch.nn.Module:
    if how.mode == "decoded":
        return load_decoded(root, plan)
    files = tuple(file.name for file in plan.files)
    model: torch.nn.Module = plan.backend.load(root, plan.component, files, device)
    return model


def execution_of(plan: ComponentPlan, device: str) -> Execution:
    """How a component of a variant will run on `device`."""
    why = plan.backend.cannot_run(plan.architecture, plan.config, device)
    return Execution("native") if why is None else Execution("decoded", why)


def load_decoded(root: Path, plan: ComponentPlan) -> torch.nn.Module:
    """A component with its weights decoded to bf16, as the plain model of its class."""
    return _assembled(plan.architecture, plan.config, decode_component(root, plan))


def _assembled(
    architecture: Architecture,
    config: Mapping[str, Any],
    weights: Iterable[tuple[str, torch.Tensor]],
) -> torch.nn.Module:
    """The plain model of this config, with all `weights` in bf16."""
    import torch

    config = {key: value for key, value in config.items() if key != "quantization_config"}
    kind = model_class(architecture.component)
    with torch.device("meta"):
        if architecture.library == "diffusers":
            model: torch.nn.Module = kind.from_config(config)
        else:
            model = kind(kind.config_class.from_dict(config))
    state = {name: weight.to(torch.bfloat16) for name, weight in weights}
    for name, others in architecture.tied.items():
        state |= dict.fromkeys(others, state[name])
    model.load_state_dict(state, assign=True)
    return model.eval()


def require_pipeline(opened: Checkpoint | Variant) -> None:
    """Raises `NotACheckpoint` for a lone component, which cannot draw."""
    if not (opened.root / "model_index.json").is_file():
        raise NotACheckpoint(
            f"{opened.root}: is a lone component, and only a whole pipeline can draw; give the "
            "pipeline with the rest as --base"
        )
