"""Encoding and decoding one planned tensor, whatever its backend and container."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.backends import Backend, PlannedTensor

if TYPE_CHECKING:
    import torch


# The first call imports the library, and some are not fit for use while another thread is still
# importing them: bitsandbytes has then no operators yet.
_warm: set[type[Backend]] = set()
_importing = threading.Lock()


def encode_target(
    backend: Backend, planned: PlannedTensor, rows: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The stored tensors, by name, for some rows of a target.

    Tensors stored in an ordinary float type are cast here; the backend sees only the others.
    """
    first = planned.stored[0]
    if is_plain(planned):
        return {first.name: rows.to(dtypes.torch_dtype(first.dtype))}
    if backend.encodes is not None:
        rows = rows.to(dtypes.torch_dtype(backend.encodes))
    if type(backend) in _warm:
        return backend.encode(rows, planned)
    with _importing:
        encoded = backend.encode(rows, planned)
    _warm.add(type(backend))
    return encoded


def decode_target(
    backend: Backend, planned: PlannedTensor, stored: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """The target back from its stored tensors, in a float type and in the target's shape.

    `stored` holds safetensors tensors in their own dtype and shape, GGUF tensors as raw uint8.
    """
    first = planned.stored[0]
    if is_plain(planned):
        import torch

        found = stored[first.name]
        if found.dtype == torch.uint8:
            found = found.view(dtypes.torch_dtype(first.dtype))
        return found.reshape(planned.target.shape)
    return backend.decode(stored, planned).reshape(planned.target.shape)


def is_plain(planned: PlannedTensor) -> bool:
    """Whether the target is stored in an ordinary float type, cast and nothing else."""
    return len(planned.stored) == 1 and planned.stored[0].dtype in dtypes.FLOATS
