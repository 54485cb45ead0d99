"""The quick encoders of the types that gguf-py encodes, too: byte for byte as gguf-py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fluxconv.converters.gguf import encode

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: The types that gguf-py encodes itself.
GGUF_PYS = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")


#: Of larger weights gguf-py's scales or minima become infinite, and ours do not.
LARGEST = 60000.0


def by_gguf_py(weight: torch.Tensor, type_name: str) -> bytes:
    """The bytes that gguf-py encodes `weight` to."""
    import gguf
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):  # blocks of huge or tiny weights
        data = gguf.quants.quantize(weight.float().numpy(), gguf.GGMLQuantizationType[type_name])
    return bytes(data.tobytes())


def _weights() -> Iterator[Any]:
    generator = torch.Generator().manual_seed(0)

    def normal(scale: float, rows: int = 64) -> torch.Tensor:
        return torch.randn(rows, 64, generator=generator) * scale

    def outlier(value: float) -> torch.Tensor:
        weight = normal(0.01)
        weight[:, 37] = value
        return weight

    def scale_of_one(weight: torch.Tensor) -> torch.Tensor:
        weight[:, ::32] = 127
        return weight.clamp_(-127, 127)

    any_bits = torch.randint(-(2**31), 2**31, (4096, 64), generator=generator)
    yield pytest.param(normal(0.03, 512), id="normal")
    yield pytest.param(torch.zeros(2, 64), id="zeros")
    yield pytest.param(torch.full((2, 64), 0.37), id="one value")
    yield pytest.param(torch.full((2, 64), -0.37), id="one negative value")
    yield pytest.param(normal(1).abs() + 1, id="positive")
    yield pytest.param(-normal(1).abs() - 1, id="negative")
    yield pytest.param(outlier(50), id="outlier")
    yield pytest.param(outlier(-50), id="negative outlier")
    yield pytest.param(normal(4, 1024).round(), id="equal magnitudes of both signs")
    yield pytest.param(scale_of_one(normal(60, 1024).round() / 2), id="halves")
    yield pytest.param(scale_of_one(torch.full((2, 64), 0.5 - 2**-25)), id="nearly halves")
    yield pytest.param(normal(1e-6), id="scales below fp16's normal numbers")
    yield pytest.param(normal(3e-38), id="scales without an inverse")
    yield pytest.param(normal(1e-44), id="denormals")
    yield pytest.param(normal(1).sign() * LARGEST, id="largest")
    yield pytest.param(any_bits.to(torch.int32).view(torch.float32), id="any bits")


@pytest.mark.parametrize("type_name", GGUF_PYS)
@pytest.mark.parametrize("weight", _weights())
def test_fast_bytes_are_gguf_pys(weight: torch.Tensor, type_name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        cast = weight.to(dtype).nan_to_num(0, 0, 0).clamp(-LARGEST, LARGEST)
        cast[cast == 0] = 0  # the signs of zeros are not kept
        before = cast.clone()
        encoded = encode(cast.to(DEVICE), type_name, effort="fast")
        assert encoded.dtype == torch.uint8 and len(encoded) == len(weight)
        assert encoded.cpu().numpy().tobytes() == by_gguf_py(cast, type_name), dtype
        assert torch.equal(cast, before)
