"""What quantizing does to the tiny Flux's output where both models get the very same inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.load import load_checkpoint, load_decoded
from fluxconv.validators import load_settings


@dataclass(frozen=True)
class OutputError:
    """Relative RMS error of the predicted velocity, with one component quantized or both."""

    transformer: float
    text_encoder_2: float
    both: float


class Teacher:
    """The source, what it gave its transformer and T5 at every step of drawing `prompts`, and what
    they answered; all in fp32. Prompt i is drawn with the seed 1,000 + i."""

    def __init__(self, checkpoint: Checkpoint, prompts: list[str]) -> None:
        settings = load_settings(checkpoint.root)
        pipeline = load_checkpoint(checkpoint, "cpu")
        pipeline.set_progress_bar_config(disable=True)
        for model in (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.transformer):
            model.float()
        self._transformer = pipeline.transformer
        self._steps = settings.steps
        self._inputs: list[dict[str, Any]] = []
        self._tokens: list[torch.Tensor] = []
        hooks = (
            pipeline.transformer.register_forward_pre_hook(
                lambda _, args, kwargs: self._inputs.append(kwargs), with_kwargs=True
            ),
            pipeline.text_encoder_2.register_forward_pre_hook(
                lambda _, args: self._tokens.append(args[0])
            ),
        )
        for index, prompt in enumerate(prompts):
            pipeline(
                prompt,
                height=settings.height,
                width=settings.width,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                max_sequence_length=settings.max_sequence_length,
                generator=torch.Generator().manual_seed(1000 + index),
                output_type="latent",
            )
        for hook in hooks:
            hook.remove()
        self._texts = self._read(pipeline.text_encoder_2)
        self._velocity = self._predict(self._transformer, self._texts)

    def error(self, variant: Variant) -> OutputError:
        """Of a variant, decoded."""
        plans = variant.component_plans()
        transformer = load_decoded(variant.root, plans["transformer"]).float()
        texts = self._read(load_decoded(variant.root, plans["text_encoder_2"]).float())
        return OutputError(
            self._against(self._predict(transformer, self._texts)),
            self._against(self._predict(self._transformer, texts)),
            self._against(self._predict(transformer, texts)),
        )

    @torch.no_grad()
    def _read(self, text_encoder: Any) -> list[torch.Tensor]:
        return [text_encoder(tokens)[0] for tokens in self._tokens]

    @torch.no_grad()
    def _predict(self, transformer: Any, texts: list[torch.Tensor]) -> torch.Tensor:
        found = []
        for number, inputs in enumerate(self._inputs):
            text = texts[number // self._steps]
            found.append(transformer(**inputs | {"encoder_hidden_states": text})[0])
        return torch.cat(found)

    def _against(self, velocity: torch.Tensor) -> float:
        return float((velocity - self._velocity).norm() / self._velocity.norm())
