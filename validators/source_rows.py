"""Some rows of a source's weights at a time, for several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.component import Component
from fluxconv.converters.safetensors_header import TensorInfo
from fluxconv.converters.tensor_data import read_tensor

if TYPE_CHECKING:
    import torch

_WHOLE = 3  # weights: the parts of a fused target, that may meet in one piece


class SourceRows:
    """Reads rows of the weights of a component.

    A weight that is stored as it is, is read piece by piece; others are assembled whole, and kept
    until others are asked for.
    """

    def __init__(self, component: Component) -> None:
        self._component = component
        self._stored = {
            step.weights[0]: info
            for step in component.steps
            # Other layouts have other names for what they split, swap or scale.
            if step.stored == step.weights
            and (info := component.tensors[step.stored[0]]).dtype in dtypes.FLOATS
            and info.shape == component.shapes.get(info.name)
        }
        self._whole: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every weight by its name."""
        return self._component.shapes

    def read(self, weight: str, start: int, stop: int) -> torch.Tensor:
        """The rows `start` to `stop` of a weight, in a float type; do not change them."""
        info = self._stored.get(weight)
        if info is not None:
            return read_tensor(_rows(info, start, stop))
        with self._one_at_a_time:
            if weight not in self._whole:
                self._whole[weight] = self._component.read(weight)
                if len(self._whole) > _WHOLE:
                    self._whole.popitem(last=False)
            return self._whole[weight][start:stop]


def _rows(info: TensorInfo, start: int, stop: int) -> TensorInfo:
    length = info.nbytes // max(1, info.shape[0])
    return TensorInfo(
        info.name,
        info.dtype,
        (stop - start, *info.shape[1:]),
        info.file,
        info.offset + start * length,
        (stop - start) * length,
    )
