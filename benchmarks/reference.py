"""ggml's own encoders, by ctypes: what ours are measured against."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from fluxconv.converters.gguf.types import TYPES


class Reference:
    """`ggml_quantize_chunk` of a `libggml-base`, on the thread that calls it.

    Source: ggml, `ggml.h`. Raises `OSError` if the library cannot be loaded.
    """

    def __init__(self, library: Path) -> None:
        self._quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
        self._quantize.restype = ctypes.c_size_t
        self._quantize.argtypes = [
            ctypes.c_int,  # type
            ctypes.c_void_p,  # source
            ctypes.c_void_p,  # destination
            ctypes.c_int64,  # first weight
            ctypes.c_int64,  # rows
            ctypes.c_int64,  # columns
            ctypes.c_void_p,  # importance, or null for the plain path
        ]

    def encode(
        self,
        weights: NDArray[np.float32],
        type_name: str,
        importance: NDArray[np.float32] | None = None,
    ) -> NDArray[np.uint8]:
        """`weights` (rows, columns), contiguous, as (rows, bytes of a row); `importance` has one
        value for each column."""
        assert weights.dtype == np.float32 and weights.flags.c_contiguous
        rows, columns = weights.shape
        encoded = np.empty((rows, TYPES[type_name].row_bytes(columns)), np.uint8)
        if importance is not None:
            assert importance.shape == (columns,) and importance.dtype == np.float32
        written = self._quantize(
            GGMLQuantizationType[type_name].value,
            weights.ctypes.data,
            encoded.ctypes.data,
            0,
            rows,
            columns,
            importance.ctypes.data if importance is not None else None,
        )
        assert written == encoded.nbytes
        return encoded

    def searching(self, weights: NDArray[np.float32], type_name: str) -> NDArray[np.uint8]:
        """The path that searches harder: with importance of all ones."""
        return self.encode(weights, type_name, np.ones(weights.shape[1], np.float32))
