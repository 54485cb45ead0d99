"""The element types of the safetensors format."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Name in a safetensors header -> (bits of one element, attribute of `torch`).
# Source: safetensors/src/tensor.rs, `enum Dtype`, in its order.
_DTYPES: dict[str, tuple[int, str]] = {
    "BOOL": (8, "bool"),
    "U8": (8, "uint8"),
    "I8": (8, "int8"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E8M0": (8, "float8_e8m0fnu"),
    "I16": (16, "int16"),
    "U16": (16, "uint16"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "I32": (32, "int32"),
    "U32": (32, "uint32"),
    "F32": (32, "float32"),
    "C64": (64, "complex64"),
    "F64": (64, "float64"),
    "I64": (64, "int64"),
    "U64": (64, "uint64"),
}

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


def known(dtype: str) -> bool:
    """Whether `dtype` is a type of the safetensors format that torch can hold."""
    return dtype in _DTYPES


def rank(dtype: str) -> int:
    """The place of a type in the format's own order, by which a file's tensors are sorted."""
    return list(_DTYPES).index(dtype)


def itemsize(dtype: str) -> int:
    """Bytes of one element."""
    return _DTYPES[dtype][0] // 8


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch type of the same name."""
    import torch

    found = getattr(torch, _DTYPES[dtype][1])
    assert isinstance(found, torch.dtype)
    return found
