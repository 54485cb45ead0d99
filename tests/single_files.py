"""The tiny transformer as one file under Black Forest Labs' names.

Which tensor goes where comes from `bfl_names.json`, which has nothing to do with fluxconv's table.
"""

from __future__ import annotations

from pathlib import Path

import synthetic
import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
PREFIX = "model.diffusion_model."


def transformer_of(root: Path) -> Tensors:
    return load_file(root / "transformer" / "diffusion_pytorch_model.safetensors")


def packed(weights: Tensors, prefix: str = "") -> Tensors:
    """The same under Black Forest Labs' names, fused and swapped."""
    entries = synthetic.bfl_entries({name: tuple(w.shape) for name, w in weights.items()}, prefix)
    flat = {name: weight.reshape(-1) for name, weight in weights.items()}
    return {
        entry.name: torch.cat(
            [flat[piece.name][piece.start : piece.stop] for piece in entry.pieces]
        ).reshape(entry.shape)
        for entry in entries
    }


def save(tensors: Tensors, folder: Path, name: str = "tiny-flux") -> Path:
    """One safetensors file, called `name`, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.safetensors"
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, file)
    return file
