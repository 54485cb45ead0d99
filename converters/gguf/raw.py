"""A GGUF file as the reader of safetensors files has it: every tensor as its raw bytes."""

from __future__ import annotations

from fluxconv.converters.gguf.reader import GgufHeader
from fluxconv.converters.safetensors_header import Header, TensorInfo


def raw_header(found: GgufHeader) -> Header:
    """The same tensors at the same places, each as so many numbers of one byte."""
    tensors = tuple(
        TensorInfo(tensor.name, "U8", (tensor.nbytes,), found.file, tensor.offset, tensor.nbytes)
        for tensor in found.tensors
    )
    start = tensors[0].offset if tensors else 0
    return Header(found.file, found.size, start, tensors, {})
