"""GGUF files and the types in them, beside gguf-py, the format's own library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fluxconv.converters import Checkpoint, Variant, plan
from fluxconv.converters.architectures import FLUX
from fluxconv.converters.backends import SourceSlice, Target, all_backends, get_backend
from fluxconv.converters.backends.gguf import Gguf
from fluxconv.converters.errors import UsageError
from fluxconv.converters.gguf import decode, encode
from fluxconv.converters.gguf.types import TYPES
from fluxconv.converters.load import load_decoded
from fluxconv.converters.planning import VariantPlan
from fluxconv.converters.stored import read_entries

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = {name: each for name, each in all_backends().items() if isinstance(each, Gguf)}


def test_every_legacy_type_is_a_backend() -> None:
    """With its nominal bits a weight, scales included."""
    bits = {"q8_0": 8.5, "q5_1": 6.0, "q5_0": 5.5, "q4_1": 5.0, "q4_0": 4.5, "f16": 16, "bf16": 16}
    assert {name: BACKENDS[f"gguf-{name}"].bits for name in bits} == bits


def test_block_sizes_are_gguf_pys() -> None:
    import gguf

    for name, kind in TYPES.items():
        sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        assert (kind.weights, kind.nbytes) == sizes


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "stem"),
    [
        ("transformer", "tiny-flux"),
        # gguf-py takes seconds for T5's tokenizer.
        pytest.param("text_encoder_2", "tiny-flux-text_encoder_2", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gguf_reader_lists_the_plan(
    backend: str,
    part: str,
    stem: str,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
) -> None:
    import gguf

    label = backend.removeprefix("gguf-").upper()
    ((component,),) = (each.components for each in plan(tiny_checkpoint, [backend], (part,)))
    reader = gguf.GGUFReader(tiny_variants[backend].root / f"{stem}-{label}.gguf")
    found = {
        t.name: (t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)), int(t.n_bytes))
        for t in reader.tensors
    }
    stored = [s for t in component.tensors for s in t.stored]
    assert found == {s.name: (s.dtype, s.shape, s.nbytes) for s in stored}
    general = {
        "general.architecture": component.architecture.gguf,
        "general.quantization_version": 2,
        "general.file_type": gguf.LlamaFileType[f"MOSTLY_{label}"],
    }
    assert {name: reader.fields[name].contents() for name in general} == general


@pytest.mark.parametrize("backend", BACKENDS)
def test_gguf_blocks_equal_gguf_py(
    backend: str, tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    """One fused weight, q over k over v, against gguf-py encoding the concatenation whole."""
    from safetensors.torch import load_file

    source = load_file(
        tiny_checkpoint.components["transformer"].path / "diffusion_pytorch_model.safetensors"
    )
    block = "single_transformer_blocks.1"
    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    fused = torch.cat([source[f"{block}.{part}.weight"] for part in parts])
    plans = tiny_variants[backend].component_plans()
    entries = read_entries(tiny_variants[backend].root / plans["transformer"].files[0].name)
    entry = {e.name: e for e in entries}["single_blocks.1.linear1.weight"]
    assert entry.read().numpy().tobytes() == _by_gguf_py(fused, BACKENDS[backend].type_name)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_transformers_opens_the_text_encoder(
    backend: str, tiny_variants: dict[str, Variant]
) -> None:
    """With the gated GELU of its config: with ReLU the result would be another."""
    variant = tiny_variants[backend]
    component = variant.component_plans()["text_encoder_2"]
    assert component.backend.cannot_run(component.architecture, component.config, "cpu") is None
    files = tuple(file.name for file in component.files)
    native = component.backend.load(variant.root, "text_encoder_2", files, "cpu")
    decoded = load_decoded(variant.root, component)
    tokens = torch.arange(1, 33)[None]
    with torch.inference_mode():
        have, want = (model(tokens).last_hidden_state for model in (native, decoded))
    assert want.std() > 0 and torch.equal(have, want)


# Encoders ----------------------------------------------------------------------------------------


def _by_gguf_py(weight: torch.Tensor, type_name: str) -> bytes:
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
    yield pytest.param(torch.full((2, 64), -0.0), id="negative zeros")
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
    yield pytest.param(normal(1e37), id="huge")
    yield pytest.param(normal(1).sign() * torch.finfo(torch.float32).max, id="largest")
    yield pytest.param(any_bits.to(torch.int32).view(torch.float32), id="any bits")


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("weight", _weights())
def test_bytes_are_gguf_pys(weight: torch.Tensor, type_name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        cast = weight.to(dtype).nan_to_num(0, 0, 0)
        if not cast.signbit().all():
            cast[cast == 0] = 0  # with both zeros in a block, see the next test
        before = cast.clone()
        encoded = encode(cast.to(DEVICE), type_name)
        assert encoded.dtype == torch.uint8 and len(encoded) == len(weight)
        assert encoded.cpu().numpy().tobytes() == _by_gguf_py(cast, type_name), dtype
        assert torch.equal(cast, before)


@pytest.mark.parametrize("type_name", ["Q4_1", "Q5_1"])
def test_of_both_zeros_the_first_is_the_minimum(type_name: str) -> None:
    """As in ggml's loop, on every device. In gguf-py it is any of them."""
    zeros = torch.zeros(64, 32)
    zeros[torch.rand(64, 32, generator=torch.Generator().manual_seed(0)) < 0.5] = -0.0
    sign = encode(zeros.to(DEVICE), type_name)[:, 3].cpu() >> 7
    assert torch.equal(sign.bool(), zeros[:, 0].signbit())


@pytest.mark.parametrize("type_name", TYPES)
def test_pieces_of_rows_make_the_same_bytes(type_name: str) -> None:
    """More weights than are in work at once, in rows that do not divide them."""
    weight = torch.randn(700, 1056, generator=torch.Generator().manual_seed(0)).bfloat16()
    whole = encode(weight, type_name)
    assert torch.equal(whole, torch.cat([encode(rows, type_name) for rows in weight.split(150)]))
    assert torch.equal(whole, encode(weight.t().contiguous().t(), type_name))


@pytest.mark.parametrize("type_name", TYPES)
def test_bytes_decode_to_the_weight(type_name: str) -> None:
    weight = torch.randn(8, 96, generator=torch.Generator().manual_seed(0))
    decoded = decode(encode(weight, type_name).flatten(), type_name, 96)
    assert decoded.dtype == torch.float32 and decoded.shape == weight.shape
    assert float((decoded - weight).norm() / weight.norm()) < 0.12


# Rules -------------------------------------------------------------------------------------------


_RELATIVE_BIAS = "enc.blk.0.attn_rel_b.weight"


def _planned(checkpoint: Checkpoint, backend: str, **options: Any) -> VariantPlan:
    (planned,) = plan(checkpoint, [get_backend(backend).configured(options)])
    return planned


def _stored(planned: VariantPlan) -> dict[str, tuple[str, str]]:
    """Type and reason of every tensor."""
    return {
        tensor.name: (tensor.stored[0].dtype, tensor.reason)
        for component in planned.components
        for tensor in component.tensors
    }


def test_the_first_rule_that_matches_decides(tiny_checkpoint: Checkpoint) -> None:
    """By GGUF names or by those of the source's modules; q stands for all that is fused with it."""
    rules = ("double_blocks.1.img_mlp.2.weight=f16", "img_mlp=q4_0", r"blocks\.1\.attn\.to_q$=Q5_1")
    planned = _planned(tiny_checkpoint, "gguf-q8_0", tensor_types=rules)
    stored = _stored(planned)
    assert stored["double_blocks.1.img_mlp.2.weight"] == ("F16", "kept: as asked")
    assert stored["double_blocks.0.img_mlp.2.weight"] == ("Q4_0", "quantized: as asked")
    assert stored["double_blocks.1.img_attn.qkv.weight"] == ("Q5_1", "quantized: as asked")
    assert stored["single_blocks.1.linear1.weight"] == ("Q5_1", "quantized: as asked")
    assert stored["double_blocks.0.img_attn.qkv.weight"] == ("Q8_0", "quantized")
    assert stored["double_blocks.0.img_mlp.2.bias"] == ("F32", "kept: 1-D, never Q4_0")
    assert planned.name.startswith("tiny-flux-gguf-q8_0-tensor-types-")
    assert planned.components[0].files[0].name.startswith("tiny-flux-Q8_0-tensor-types-")


@pytest.mark.parametrize("backend", ["gguf-f16", "gguf-bf16", "gguf-q4_0"])
@pytest.mark.parametrize(
    "options", [{}, {"skip": (".",)}, *({"tensor_types": (f".={name}",)} for name in TYPES)]
)
def test_no_loader_meets_a_type_that_it_misreads(
    backend: str, options: dict[str, Any], tiny_checkpoint: Checkpoint
) -> None:
    """Whatever is asked: diffusers would open a depth model if `img_in.weight` were BF16."""
    for component in _planned(tiny_checkpoint, backend, **options).components:
        for tensor in component.tensors:
            (stored,) = tensor.stored
            if len(stored.shape) == 1 or stored.name in ("img_in.weight", _RELATIVE_BIAS):
                assert stored.dtype in ("F32", "F16"), stored.name
            assert stored.shape[-1] % TYPES[stored.dtype].weights == 0, stored.name


@pytest.mark.parametrize("options", [{}, {"tensor_types": ("x=Q5_1",)}])
def test_short_rows_fall_back(options: dict[str, Any]) -> None:
    target = Target("x.weight", (8, 48), "linear", (SourceSlice("x.weight", 0, 8),))
    planned = get_backend("gguf-q8_0").configured(options).plan_tensor(target, FLUX)
    assert planned.stored[0].dtype == "F16" and planned.nbytes == 8 * 48 * 2
    assert planned.reason == "fallback: rows of 48 are no multiple of 32"


def test_a_rule_beats_skip(tiny_checkpoint: Checkpoint) -> None:
    options = {"skip": ("single",), "tensor_types": ("linear2=Q4_0",)}
    stored = _stored(_planned(tiny_checkpoint, "gguf-q8_0", **options))
    assert stored["single_blocks.0.linear2.weight"] == ("Q4_0", "quantized: as asked")
    assert stored["single_blocks.0.linear1.weight"] == ("BF16", "kept: skipped as asked")
    assert stored["double_blocks.0.img_mlp.0.weight"] == ("Q8_0", "quantized")


def test_a_pattern_may_hold_an_equals_sign(tiny_checkpoint: Checkpoint) -> None:
    stored = _stored(_planned(tiny_checkpoint, "gguf-q8_0", tensor_types=("^(?=txt_in)=Q4_1",)))
    assert stored["txt_in.weight"] == ("Q4_1", "quantized: as asked")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("img_mlp=Q4_O", "'Q4_O' is not one of F32, F16, BF16, Q8_0, .*; did you mean .*Q4_0"),
        ("img_mlp", "'img_mlp' is no rule; give REGEX=TYPE"),
        ("=Q8_0", "'=Q8_0' is no rule"),
        ("img(=Q8_0", r"'img\(' is not a regular expression"),
    ],
)
def test_a_bad_rule_says_what_is_right(rule: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^gguf-q8_0: option tensor_types: .*{message}"):
        get_backend("gguf-q8_0").configured({"tensor_types": (rule,)})
