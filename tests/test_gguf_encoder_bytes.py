"""GGUF encoders: the bytes are ggml's blocks, and the same ones however the work is cut up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import gguf
import numpy as np
import pytest
import torch
from encoder_judge import decoded, encoded, every_level, every_type, samples
from encoder_samples import importance

from fluxconv.converters.gguf import decode, encode
from fluxconv.converters.gguf.encoding import Effort
from fluxconv.converters.gguf.types import TYPES


@pytest.fixture(scope="module", autouse=True)
def eager() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUXCONV_COMPILE", "0")
        yield


@every_type
@every_level
def test_pieces_of_rows_make_the_same_bytes(level: Effort, type_name: str) -> None:
    """More weights than are in work at once, in pieces that do not divide them."""
    weight = torch.from_numpy(samples()["Student-t"][:, :2560]).contiguous()
    for given in (None, torch.from_numpy(importance(2560))):
        whole = encode(weight, type_name, given, effort=level)
        parts = (weight[:1], weight[1:14], weight[14:])
        pieces = [encode(rows, type_name, given, effort=level) for rows in parts]
        assert torch.equal(whole, torch.cat(pieces))


@every_type
@every_level
def test_threads_do_not_change_the_bytes(level: Effort, type_name: str) -> None:
    weights = samples()["Student-t"]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = encoded(weights, type_name, level)
        torch.set_num_threads(2)
        assert torch.equal(one, encoded(weights, type_name, level))
    finally:
        torch.set_num_threads(before)


@every_type
@every_level
def test_values_decide_and_not_how_they_are_stored(level: Effort, type_name: str) -> None:
    """bf16, fp16 and fp32 of the same values, transposed or a slice; the input stays as it is."""
    # Within fp16's normal numbers, so that all three types hold them.
    weight = torch.from_numpy(samples()["Student-t"][:64, :512]).bfloat16().float()
    weight = torch.where(weight.abs() > 1e-3, weight, 0)
    want = encode(weight, type_name, effort=level)
    assert want.dtype == torch.uint8 and want.is_contiguous()
    views = {
        "bf16": weight.bfloat16(),
        "fp16": weight.half(),
        "transposed": weight.t().contiguous().t(),
        "sliced": torch.cat((weight, weight), 1)[:, 512:],
        "every other row": weight.repeat_interleave(2, 0)[::2],
    }
    for name, view in views.items():
        assert torch.equal(view.float(), weight)
        assert torch.equal(encode(view, type_name, effort=level), want), name
        assert torch.equal(view.float(), weight), name


@every_type
@every_level
def test_blocks_are_ggmls(level: Effort, type_name: str) -> None:
    """As many bytes as gguf-py has in its tables, and read by its decoder as by ours."""
    block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]]
    assert (TYPES[type_name].weights, TYPES[type_name].nbytes) == (block, nbytes)
    for columns in (block, 7 * block):
        blocks = encoded(samples()["Student-t"][:, :columns], type_name, level)
        assert blocks.shape == (len(samples()["Student-t"]), columns // block * nbytes)
        back = decode(blocks, type_name, columns)
        assert back.dtype == torch.float32
        assert np.array_equal(back.numpy(), decoded(blocks, type_name))


@every_type
@every_level
def test_no_rows_make_no_bytes(level: Effort, type_name: str) -> None:
    blocks = encode(torch.empty(0, 512), type_name, effort=level)
    assert blocks.shape == (0, TYPES[type_name].row_bytes(512)) and blocks.dtype == torch.uint8


# Bad input ---------------------------------------------------------------------------------------


@every_type
def test_rows_that_are_no_whole_blocks_are_refused(type_name: str) -> None:
    columns = TYPES[type_name].weights + 1
    with pytest.raises(ValueError, match=rf"(?=.*{type_name}).*{columns}"):
        encode(torch.ones(2, columns), type_name)


@pytest.mark.parametrize("type_name", ["Q4_K", "Q4_0"])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(torch.ones(255), id="too short"),
        pytest.param(torch.ones(512), id="too long"),
        pytest.param(torch.ones(2, 256), id="a matrix"),
        pytest.param(torch.full((256,), -1.0), id="negative"),
        pytest.param(torch.full((256,), math.nan), id="NaN"),
        pytest.param(torch.full((256,), math.inf), id="infinite"),
    ],
)
def test_importance_that_cannot_be_is_refused(type_name: str, wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="importance"):
        encode(torch.ones(2, 256), type_name, wrong)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"slow"):
        encode(torch.ones(2, 256), "Q4_K", effort="slow")  # type: ignore[arg-type]
