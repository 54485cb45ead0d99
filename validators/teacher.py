"""The layers that give a variant's models the very inputs that the source's had.

Whole drawings drift: a small difference at one step makes the next step start elsewhere. Here each
step starts where the source's did ("teacher forcing"), so what is measured is what quantizing did
to the model, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fluxconv.converters.errors import CheckFailed
from fluxconv.converters.progress import Progress
from fluxconv.validators.drawing import Wanted
from fluxconv.validators.recording import Recorded
from fluxconv.validators.results import (
    PromptText,
    StepError,
    StepsResult,
    TextResult,
    Trajectory,
)

if TYPE_CHECKING:
    import torch

_DIGITS = 6


def compare_text(
    pipeline: Any, pictures: Sequence[Wanted], folder: Path, progress: Progress
) -> TextResult:
    """T5 of `pipeline` against the states that the source recorded in `folder`, token by token.

    Padding is left out: it says nothing of the prompt, and there is more of it than of anything.
    Raises `CheckFailed` if a state is not finite.
    """
    import torch

    model = pipeline.text_encoder_2
    device = _device_of(pipeline)
    progress.start("Comparing the text encoder", len(pictures), "prompts")
    found: list[PromptText] = []
    error_sum = norm_sum = 0.0
    for picture in pictures:
        recorded = Recorded(folder / f"{picture.stem}.safetensors", device, torch.float32)
        with torch.no_grad():
            states = model(recorded.tokens, output_hidden_states=False)[0]
        _require_finite(states, "the text encoder", picture)
        own = recorded.tokens[0] != model.config.pad_token_id
        theirs, ours = recorded.states[0][own].double(), states[0][own].double()
        errors, norms = (ours - theirs).square().sum(1), theirs.square().sum(1)
        cosines = torch.nn.functional.cosine_similarity(ours, theirs, dim=1)
        error_sum, norm_sum = error_sum + float(errors.sum()), norm_sum + float(norms.sum())
        found.append(
            PromptText(
                prompt=picture.prompt,
                relative_rms=_relative(float(errors.sum()), float(norms.sum())),
                errors=tuple(round(x, _DIGITS) for x in (errors / norms).sqrt().tolist()),
                cosines=tuple(round(x, _DIGITS) for x in cosines.tolist()),
            )
        )
        progress.advance(1, picture.prompt)
    progress.finish()
    cosine = [cosine for prompt in found for cosine in prompt.cosines]
    return TextResult(
        prompts=tuple(found),
        relative_rms=_relative(error_sum, norm_sum),
        cosine_mean=round(fmean(cosine), _DIGITS),
        cosine_min=min(cosine),
    )


def compare_steps(
    pipeline: Any,
    pictures: Sequence[Wanted],
    folder: Path,
    steps: int,
    progress: Progress,
    dtype: torch.dtype | None = None,
) -> StepsResult:
    """The transformer of `pipeline` against the velocity that the source recorded in `folder`, at
    each of the `steps` of every drawing.

    The inputs are given as `dtype`, by default as they were recorded. Raises `CheckFailed` if an
    answer is not finite.
    """
    import torch

    model = pipeline.transformer
    device = _device_of(pipeline)
    progress.start("Comparing steps", len(pictures) * steps, "steps")
    trajectories: list[Trajectory] = []
    error_sum = norm_sum = 0.0
    for picture in pictures:
        found: list[StepError] = []
        recorded = Recorded(folder / f"{picture.stem}.safetensors", device, dtype)
        for arguments, velocity in recorded.steps():
            with torch.no_grad():
                answer = model(**arguments)[0].double()
            _require_finite(answer, "the transformer", picture)
            theirs = velocity.double()
            error = float((answer - theirs).square().sum())
            norm = float(theirs.square().sum())
            length = float(answer.square().sum()) * norm
            error_sum, norm_sum = error_sum + error, norm_sum + norm
            found.append(
                StepError(
                    timestep=round(float(arguments["timestep"].flatten()[0]), _DIGITS),
                    relative_rms=_relative(error, norm),
                    cosine=round(float((answer * theirs).sum()) / length**0.5, _DIGITS)
                    if length
                    else 0.0,
                )
            )
            progress.advance(1, picture.prompt)
        trajectories.append(
            Trajectory(prompt=picture.prompt, seed=picture.seed, steps=tuple(found))
        )
    progress.finish()
    every = [step for trajectory in trajectories for step in trajectory.steps]
    return StepsResult(
        trajectories=tuple(trajectories),
        relative_rms=_relative(error_sum, norm_sum),
        relative_rms_max=max(step.relative_rms for step in every),
        cosine_mean=round(fmean(step.cosine for step in every), _DIGITS),
        cosine_min=min(step.cosine for step in every),
    )


def _device_of(pipeline: Any) -> Any:
    # Where an offloaded model computes, not where it lies.
    return pipeline._execution_device


def _require_finite(answer: torch.Tensor, what: str, picture: Wanted) -> None:
    if not bool(answer.isfinite().all()):
        raise CheckFailed(f"{what} gives NaN or infinity for '{picture.prompt}'")


def _relative(error: float, norm: float) -> float:
    if norm == 0:
        return 0.0 if error == 0 else 1.0
    return round(math.sqrt(error / norm), 7)
