"""What a source gave its transformer and T5 while it drew one picture, and what they answered.

A safetensors file: `step.NAME` stacks the transformer's argument NAME over the steps, `call.NAME`
holds one that is the same at each; `velocity` stacks its answers; `tokens` (1, tokens) and `states`
(1, tokens, width) are T5's. All in the dtype that the model ran in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Recording:
    """Watches a pipeline's models while it is a context."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._calls: list[dict[str, torch.Tensor]] = []
        self._velocity: list[torch.Tensor] = []
        self._text: dict[str, torch.Tensor] = {}

    def __enter__(self) -> Recording:
        transformer, text_encoder = self._pipeline.transformer, self._pipeline.text_encoder_2
        self._hooks = (
            transformer.register_forward_hook(self._step, with_kwargs=True),
            text_encoder.register_forward_hook(self._read, with_kwargs=True),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def write(self, file: Path) -> None:
        """Write what was seen; the file is there whole or not at all."""
        import torch
        from safetensors.torch import save_file

        found = {"velocity": torch.stack(self._velocity), **self._text}
        for name, first in self._calls[0].items():
            every = [call[name] for call in self._calls]
            if all(torch.equal(first, other) for other in every):
                found[f"call.{name}"] = first
            else:
                found[f"step.{name}"] = torch.stack(every)
        place = file.with_name(f".{file.name}.{time.monotonic_ns()}")
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, place)
        place.rename(file)

    def _step(
        self, _model: Any, _args: tuple[Any, ...], kwargs: Mapping[str, Any], answer: Any
    ) -> None:
        import torch

        self._calls.append(
            {name: _kept(each) for name, each in kwargs.items() if isinstance(each, torch.Tensor)}
        )
        self._velocity.append(_kept(answer[0]))

    def _read(
        self, _model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], answer: Any
    ) -> None:
        tokens = args[0] if args else kwargs["input_ids"]
        self._text = {"tokens": _kept(tokens), "states": _kept(answer[0])}


class Recorded:
    """A recording, read back to `device`; floating numbers as `dtype` (default: as recorded)."""

    def __init__(self, file: Path, device: Any, dtype: torch.dtype | None = None) -> None:
        from safetensors.torch import load_file

        self._tensors = {
            # A copy: in the file tensors stand wherever the one before ended, and some kernels for
            # int8 crash where memory is not aligned.
            name: tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)
            for name, tensor in load_file(file).items()
        }
        self.tokens = self._tensors["tokens"]
        self.states = self._tensors["states"]

    def steps(self) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
        """The transformer's arguments and answer (1, latent tokens, channels) at every step."""
        for step, velocity in enumerate(self._tensors["velocity"]):
            arguments: dict[str, Any] = {}
            for name, tensor in self._tensors.items():
                kind, _, argument = name.partition(".")
                if argument:
                    arguments[argument] = tensor[step] if kind == "step" else tensor
            yield arguments | {"return_dict": False}, velocity


def _kept(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)
