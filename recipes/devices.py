"""Where a node computes, as the machine that does it decides."""

from __future__ import annotations

from fluxconv.converters.errors import MissingRequirement


def device_of(wanted: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`; raises `MissingRequirement` if a GPU is wanted
    and this machine has none."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise MissingRequirement("device cuda: torch sees no CUDA GPU here; write `device: cpu`")
    return "cpu"
