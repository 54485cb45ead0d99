"""The types of a GGUF file's tensors: the field's mixtures, on the geometry of FLUX.1-dev."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch

from fluxconv.converters import Checkpoint
from fluxconv.converters.architectures import FLUX, T5_ENCODER
from fluxconv.converters.backends import SourceSlice, Target, all_backends, get_backend
from fluxconv.converters.backends.gguf import Gguf
from fluxconv.converters.component import Component
from fluxconv.converters.gguf.types import TYPES
from fluxconv.converters.opened import Opening
from fluxconv.converters.planning import ComponentPlan, plan_component

BACKENDS = {name: each for name, each in all_backends().items() if isinstance(each, Gguf)}
#: What the field calls such a file -> type of most weights, and of the transformer's upgraded ones.
MIXTURES = {
    "Q2_K": ("Q2_K", None),
    "Q3_K_S": ("Q3_K", None),
    "Q3_K_M": ("Q3_K", "Q4_K"),
    "Q4_K_S": ("Q4_K", None),
    "Q4_K_M": ("Q4_K", "Q5_K"),
    "Q5_K_S": ("Q5_K", None),
    "Q5_K_M": ("Q5_K", "Q6_K"),
    "Q6_K": ("Q6_K", None),
    "IQ4_NL": ("IQ4_NL", None),
    "IQ4_XS": ("IQ4_XS", None),
}
BITS = {
    "Q2_K": 2.625,
    "Q3_K": 3.4375,
    "Q4_K": 4.5,
    "Q5_K": 5.5,
    "Q6_K": 6.5625,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.25,
}


def _planned(backend: str, part: str, **options: Any) -> ComponentPlan:
    """Of a component of real size; there are no weights."""
    architecture, config = {
        "transformer": (FLUX, synthetic.transformer_config()),
        "text_encoder_2": (
            T5_ENCODER,
            synthetic.t5_config()
            | {"layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 32},
        ),
    }[part]
    config = json.loads(json.dumps(config))
    component = Component(part, Path("nowhere"), config, architecture, ())
    checkpoint = Checkpoint(
        Path("nowhere"), "FLUX.1-dev", "black-forest-labs/FLUX.1-dev", None, {}, {}, Opening("")
    )
    return plan_component(checkpoint, component, get_backend(backend).configured(options))


def _types(plan: ComponentPlan) -> dict[str, str]:
    return {tensor.name: tensor.stored[0].dtype for tensor in plan.tensors}


@pytest.mark.parametrize("mix", MIXTURES)
def test_every_type_of_the_field_is_a_backend(mix: str) -> None:
    """Under its name, with the nominal bits of its main type and gguf-py's file type."""
    import gguf

    backend = BACKENDS[f"gguf-{mix.lower()}"]
    main, _ = MIXTURES[mix]
    assert (backend.type_name, backend.bits) == (main, BITS[main])
    assert (
        backend.file_type == f"MOSTLY_{mix}" and backend.file_type in gguf.LlamaFileType.__members__
    )
    planned = _planned(backend.name, "transformer")
    assert [file.name for file in planned.files] == [f"FLUX.1-dev-{mix}.gguf"]


@pytest.mark.parametrize("name", BACKENDS)
def test_of_780_tensors_304_are_quantized(name: str) -> None:
    plan = _planned(name, "transformer")
    flat = [tensor for tensor in plan.tensors if len(tensor.target.shape) == 1]
    quantized = [tensor for tensor in plan.tensors if tensor.quantized]
    kept = [tensor for tensor in plan.tensors if not tensor.quantized and tensor not in flat]
    assert (len(plan.tensors), len(quantized), len(flat), len(kept)) == (780, 304, 466, 10)
    assert {tensor.stored[0].dtype for tensor in flat} == {"F32"}
    assert not any(tensor.reason.startswith("fallback") for tensor in plan.tensors)
    main, better = MIXTURES.get(BACKENDS[name].mix, (BACKENDS[name].type_name, None))
    count = Counter(tensor.stored[0].dtype for tensor in quantized)
    assert count == (Counter({main: 266, better: 38}) if better else Counter({main: 304}))


@pytest.mark.parametrize("mix", ["Q3_K_M", "Q4_K_M", "Q5_K_M"])
def test_the_better_ones_are_the_double_blocks_fused_attention(mix: str) -> None:
    plan = _planned(f"gguf-{mix.lower()}", "transformer")
    upgraded = [t.name for t in plan.tensors if t.reason == f"quantized: upgraded in {mix} files"]
    assert sorted(upgraded) == sorted(
        f"double_blocks.{i}.{stream}_attn.qkv.weight"
        for i in range(19)
        for stream in ("img", "txt")
    )


# T5 ----------------------------------------------------------------------------------------------


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _by_llama_cpp(mix: str, tensor: str, layers: int = 24) -> str:
    """Line by line what `llama_tensor_get_type_impl` does to a T5 encoder without an imatrix."""
    main, _ = MIXTURES[mix]
    if tensor == "token_embd.weight":
        return "Q6_K"
    layer, module = int(tensor.split(".")[2]), tensor.split(".")[3]
    if module == "attn_v":
        if mix == "Q2_K":
            return "Q3_K"
        if mix == "Q3_K_M":
            return "Q5_K" if layer < 2 else "Q4_K"
        if mix in ("Q4_K_M", "Q5_K_M") and _more_bits(layer, layers):
            return "Q6_K"
        if mix == "Q4_K_S" and layer < 4:
            return "Q5_K"
    if module == "ffn_down":
        if mix == "Q2_K":
            return "Q3_K"
        if mix == "Q3_K_M":
            return "Q5_K" if layer < layers // 16 else "Q4_K"
        if mix in ("Q4_K_M", "Q5_K_M") and _more_bits(layer, layers):
            return "Q6_K"
        if layer < layers // 8 and mix in ("IQ4_NL", "IQ4_XS", "Q4_K_S"):
            return "Q5_K"
    return main


@pytest.mark.parametrize("mix", MIXTURES)
def test_t5_has_the_types_that_llama_quantize_gives_it(mix: str) -> None:
    plan = _planned(f"gguf-{mix.lower()}", "text_encoder_2")
    linear = {t.name: t.stored[0].dtype for t in plan.tensors if t.quantized}
    assert len(linear) == 24 * 7 + 1
    assert linear == {name: _by_llama_cpp(mix, name) for name in linear}


# Rows that do not fit ----------------------------------------------------------------------------


def _target(name: str, columns: int) -> Target:
    return Target(name, (8, columns), "linear", (SourceSlice("x.weight", 0, 8),))


@pytest.mark.parametrize(
    ("main", "fallback"),
    [
        ("Q2_K", "IQ4_NL"),
        ("Q3_K", "IQ4_NL"),
        ("Q4_K", "Q5_0"),
        ("Q5_K", "Q5_1"),
        ("Q6_K", "Q8_0"),
        ("IQ4_XS", "IQ4_NL"),
    ],
)
def test_rows_of_no_whole_super_block_fall_back(main: str, fallback: str) -> None:
    backend = get_backend("gguf-bf16").configured({"tensor_types": (f"x={main}",)})
    planned = backend.plan_tensor(_target("x.weight", 96), FLUX)
    assert planned.stored[0].dtype == fallback
    assert planned.reason == "fallback: rows of 96 are no multiple of 256"
    assert planned.nbytes == 8 * TYPES[fallback].row_bytes(96)
    short = backend.plan_tensor(_target("x.weight", 80), FLUX)
    assert short.stored[0].dtype == "F16"


def test_an_upgraded_tensor_falls_back_from_its_better_type() -> None:
    target = _target("double_blocks.0.img_attn.qkv.weight", 96)
    planned = get_backend("gguf-q5_k_m").plan_tensor(target, FLUX)
    assert (planned.stored[0].dtype, planned.reason[:9]) == ("Q8_0", "fallback:")


def test_a_rule_beats_an_upgrade() -> None:
    plan = _planned("gguf-q4_k_m", "transformer", tensor_types=("double_blocks.0.*qkv=Q2_K",))
    assert Counter(_types(plan).values()) >= Counter({"Q4_K": 266, "Q5_K": 36, "Q2_K": 2})


# Loaders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_backend_says_loads_it_reads_every_type_in_its_files(name: str) -> None:
    """By the tables in the libraries' own code; stable-diffusion.cpp and ComfyUI-GGUF read all that
    is in gguf-py's."""
    import gguf
    from diffusers.quantizers.gguf.utils import UNQUANTIZED_TYPES, dequantize_functions

    plans = [_planned(name, part) for part in ("transformer", "text_encoder_2")]
    stored = {dtype for plan in plans for dtype in _types(plan).values()}
    kinds = {gguf.GGMLQuantizationType[dtype] for dtype in stored}
    assert set(BACKENDS[name].loads_in) >= {"diffusers", "transformers"}
    assert kinds <= UNQUANTIZED_TYPES | set(dequantize_functions)
    for kind in kinds:  # transformers decodes with gguf-py
        weights, nbytes = gguf.GGML_QUANT_SIZES[kind]
        zeros = torch.zeros(1, nbytes, dtype=torch.uint8).numpy()
        assert gguf.dequantize(zeros, kind).shape == (1, weights)
