"""What the user's rules for single tensors make of a GGUF file, and what they never can."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fluxconv.converters import Checkpoint, plan
from fluxconv.converters.architectures import FLUX
from fluxconv.converters.backends import SourceSlice, Target, get_backend
from fluxconv.converters.decisions import decide
from fluxconv.converters.errors import UsageError
from fluxconv.converters.gguf.types import TYPES
from fluxconv.converters.planning import VariantPlan

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
    by_its_module = "quantized: as asked for {}transformer_blocks.*.attn.to_q".format
    assert stored["double_blocks.1.img_attn.qkv.weight"] == ("Q5_1", by_its_module(""))
    assert stored["single_blocks.1.linear1.weight"] == ("Q5_1", by_its_module("single_"))
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
    asked = get_backend(backend).configured(options)
    for component in tiny_checkpoint.components.values():
        for tensor in decide(component, asked)[1]:
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
        ("img_mlp=", "'img_mlp=' is no rule; give REGEX=TYPE, such as img_mlp=Q8_0"),
        ("img(=Q8_0", r"'img\(' is not a regular expression"),
    ],
)
def test_a_bad_rule_says_what_is_right(rule: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^gguf-q8_0: option tensor_types: .*{message}"):
        get_backend("gguf-q8_0").configured({"tensor_types": (rule,)})


def test_a_rule_that_hits_by_a_modules_name_says_which(tiny_checkpoint: Checkpoint) -> None:
    """The modulation matrices are modules called norm1.linear: a rule for norms takes them, too."""
    stored = _stored(_planned(tiny_checkpoint, "gguf-q8_0", tensor_types=("norm=F16",)))
    asked = "kept: as asked for transformer_blocks.*.norm1.linear"
    assert stored["double_blocks.1.img_mod.lin.weight"] == ("F16", asked)
    assert stored["double_blocks.1.img_attn.norm.query_norm.scale"] == ("F16", "kept: as asked")


@pytest.mark.parametrize(
    ("rules", "idle"),
    [
        (("nonsense=Q4_0",), "nonsense=Q4_0"),
        (("img_in=Q4_0",), "img_in=Q4_0"),
        (("x_embedder=BF16",), "x_embedder=BF16"),
        (("bias=Q4_0",), "bias=Q4_0"),
        (("img_mlp=Q8_0",), "img_mlp=Q8_0"),
        (("img_mlp=Q4_0", r"img_mlp\.0=Q5_0"), r"img_mlp\.0=Q5_0"),
        (("img_mlp=Q4_0", "txt_mlp=Q4_0", "img_mlp=Q4_0"), "img_mlp=Q4_0"),
    ],
)
def test_a_rule_that_changes_nothing_is_refused(
    rules: tuple[str, ...], idle: str, tiny_checkpoint: Checkpoint
) -> None:
    """It matches nothing, or what can be of no other type or is already, or comes too late."""
    with pytest.raises(UsageError, match=re.escape(f"'{idle}' changes no tensor of tiny-flux")):
        _planned(tiny_checkpoint, "gguf-q8_0", tensor_types=rules)


def test_an_exception_from_a_later_rule_changes_something(tiny_checkpoint: Checkpoint) -> None:
    rules = (r"img_mlp\.2=Q8_0", "img_mlp=Q4_0")
    stored = _stored(_planned(tiny_checkpoint, "gguf-q8_0", tensor_types=rules))
    assert stored["double_blocks.0.img_mlp.0.weight"] == ("Q4_0", "quantized: as asked")
    assert stored["double_blocks.0.img_mlp.2.weight"] == ("Q8_0", "quantized: as asked")


@pytest.mark.parametrize("type_name", ["F16", "BF16"])
def test_what_is_not_quantized_is_not_called_so(
    type_name: str, tiny_checkpoint: Checkpoint
) -> None:
    planned = _planned(tiny_checkpoint, f"gguf-{type_name.lower()}")
    reasons = [reason for component in planned.components for reason in component.reasons]
    assert f"converted to {type_name}" in reasons
    assert not any("quantized" in reason for reason in reasons)
