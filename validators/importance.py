"""Measuring which input channels of a layer matter: the source draws, and its layers are watched.

The importance of an input channel is the mean of its squares over all tokens, prompts and steps:
the weight that a weight's squared error has in the layer's output (the diagonal of the Hessian of
"GPTQ", Frantar et al. 2022, and what llama.cpp's `imatrix` collects).

Every row that a layer multiplies counts alike. So T5's padding counts: the pipeline gives T5 no
mask and hands all its tokens on to the transformer, which reads the padding as well.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.converters.architectures import FLUX
from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import BadInput
from fluxconv.converters.importance import read_importance
from fluxconv.converters.importance.own_file import staged_file, write_own
from fluxconv.converters.load import load_checkpoint, require_pipeline
from fluxconv.converters.progress import Progress, Silent
from fluxconv.validators.calibration import calibration_settings
from fluxconv.validators.report import Settings

if TYPE_CHECKING:
    import torch

_VERSIONED = ("fluxconv", "torch", "diffusers", "transformers")
_PIECE = 1 << 22  # numbers squared at once, so that no layer's whole input is held in fp64


def measure_importance(
    checkpoint: Checkpoint,
    output: Path,
    *,
    settings: Settings | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Mapping[str, torch.Tensor]:
    """Draw with `checkpoint`, and write the importance of every linear layer to `output`; returns
    it as `read_importance` does.

    Prompt i of the settings, from 0, is drawn with their first seed + i; without settings they are
    those of `calibration_settings`. Memory beside the model's is two numbers a channel. `output`
    appears when it is complete. Raises `OutputExists`, `NotACheckpoint` for what is no pipeline and
    `BadInput` for a model that needs a picture to draw or computes NaN or infinity, or a place that
    cannot be written.
    """
    require_pipeline(checkpoint)
    settings = settings or calibration_settings(checkpoint.root)
    _check_draws_from_words(checkpoint)
    with staged_file(output, overwrite=overwrite) as file:
        squares = _draw(checkpoint, settings, device, progress or Silent())
        vectors = {name: square.mean() for name, square in squares.items()}
        _check_finite(vectors, checkpoint.source, device)
        write_own(file, vectors, _described(checkpoint, settings, device))
        found = read_importance(file)
    return found


def _check_draws_from_words(checkpoint: Checkpoint) -> None:
    transformer = checkpoint.components.get(FLUX.component)
    if transformer is None:
        return
    shapes = transformer.shapes
    # Fill, Depth and Canny read more channels than they draw: a picture's, beside the noise.
    if shapes["x_embedder.weight"][1] != shapes["proj_out.weight"][0]:
        raise BadInput(
            f"{checkpoint.opening.path}: draws from a picture, and importance is measured with "
            "words alone; quantize it without --importance"
        )


class _Squares:
    """Sums of squares of the channels of one layer's input, over the rows seen so far."""

    def __init__(self, channels: int, device: torch.device) -> None:
        import torch

        self._sums = torch.zeros(channels, dtype=torch.float64, device=device)
        self._rows = 0

    def add(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Called before the layer's forward pass; its input is (..., channels)."""
        rows = inputs[0].detach().flatten(end_dim=-2)
        step = max(1, _PIECE // rows.shape[1])
        for start in range(0, len(rows), step):
            self._sums += rows[start : start + step].double().square_().sum(0)
        self._rows += len(rows)

    def mean(self) -> torch.Tensor:
        """(channels,) in fp32 on the CPU; NaN if there was no row."""
        return (self._sums / self._rows).float().cpu()


@contextmanager
def _watched(checkpoint: Checkpoint, pipeline: Any) -> Iterator[dict[str, _Squares]]:
    """The squares of every linear layer of the pipeline's quantizable components, by its name."""
    squares: dict[str, _Squares] = {}
    handles = []
    for component in checkpoint.components.values():
        model = getattr(pipeline, component.name)
        for spec in component.architecture.specs(component.config):
            if spec.kind == "linear":
                layer = model.get_submodule(spec.module)
                squares[spec.module] = _Squares(spec.shape[1], layer.weight.device)
                handles.append(layer.register_forward_pre_hook(squares[spec.module].add))
    try:
        yield squares
    finally:
        for handle in handles:
            handle.remove()


def _draw(
    checkpoint: Checkpoint, settings: Settings, device: str, progress: Progress
) -> dict[str, _Squares]:
    import torch

    total = len(settings.prompts) * settings.steps
    progress.start(f"Measuring {checkpoint.name}", total, "steps")
    pipeline = load_checkpoint(checkpoint, device)
    pipeline.set_progress_bar_config(disable=True)
    with _watched(checkpoint, pipeline) as squares:
        for index, prompt in enumerate(settings.prompts):
            pipeline(
                prompt,
                height=settings.height,
                width=settings.width,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                max_sequence_length=settings.max_sequence_length,
                # On the CPU whatever the device: the same seed is the same noise everywhere.
                generator=torch.Generator("cpu").manual_seed(settings.seeds[0] + index),
                output_type="latent",
                callback_on_step_end=partial(_step_done, progress, prompt),
            )
    progress.finish()
    return squares


def _step_done(
    progress: Progress, prompt: str, _pipeline: Any, _step: int, _time: Any, values: dict[str, Any]
) -> dict[str, Any]:
    progress.advance(1, prompt)
    return values


def _check_finite(vectors: Mapping[str, torch.Tensor], source: str, device: str) -> None:
    import torch

    for name, vector in vectors.items():
        if not bool(torch.isfinite(vector).all()):
            raise BadInput(
                f"{source}: gives {name} NaN or infinity on {device}; a checkpoint that cannot "
                "draw cannot be measured"
            )


def _described(checkpoint: Checkpoint, settings: Settings, device: str) -> dict[str, str]:
    """The file's metadata. The prompts' hash is that of a text file with one on each line."""
    lines = "".join(f"{prompt}\n" for prompt in settings.prompts)
    drawn = settings.model_dump(mode="json", exclude={"prompts", "seeds"})
    versions = {name: metadata.version(name) for name in _VERSIONED}
    return {
        "source": checkpoint.source,
        "revision": checkpoint.revision or "",
        "prompts": str(len(settings.prompts)),
        "prompts_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "seed": str(settings.seeds[0]),
        **{key: str(value) for key, value in drawn.items()},
        "device": device,
        "versions": json.dumps({"python": platform.python_version(), **versions}),
    }
