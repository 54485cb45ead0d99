"""bitsandbytes' variants beside what diffusers, transformers and bitsandbytes make themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_equal_to_library import DEVICE, assert_same_component

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.architectures import ARCHITECTURES, FLUX, T5_ENCODER, Architecture
from fluxconv.converters.backends import Backend, PlannedTensor, SourceSlice, Target, get_backend
from fluxconv.converters.backends.bitsandbytes import PIECE
from fluxconv.converters.errors import UsageError
from fluxconv.converters.load import model_class
from fluxconv.converters.stored import decode_component

#: `proj_out` is the name of one module and the last part of others; no T5 module is called so.
SKIP = ["^proj_out$", "to_[qk]$", "block.1.*SelfAttention.[vo]$", "wi_0"]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("bnb-nf4", {}),
    ("bnb-nf4", {"compute_dtype": "float16"}),
    ("bnb-nf4", {"skip": SKIP}),
    ("bnb-nf4", {"double_quant": True}),
    ("bnb-fp4", {}),
    ("bnb-fp4", {"compute_dtype": "float32", "double_quant": True, "skip": SKIP}),
    ("bnb-int8", {}),
    ("bnb-int8", {"threshold": 0}),
    ("bnb-int8", {"threshold": 3.5, "skip": SKIP}),
]
DOUBLE = {"double_quant": True}
every_case = pytest.mark.parametrize(
    ("name", "given"),
    CASES,
    ids=[get_backend(name).configured(given).label for name, given in CASES],
)
every_part = pytest.mark.parametrize("part", list(ARCHITECTURES))


@pytest.fixture
def no_question_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers asks whether there is a GPU, and would then do without one: skip the question."""
    from diffusers.quantizers.bitsandbytes import BnB4BitDiffusersQuantizer as FourBit
    from diffusers.quantizers.bitsandbytes import BnB8BitDiffusersQuantizer as Int8

    for quantizer in (FourBit, Int8):
        monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)


def _ours(
    checkpoint: Checkpoint, backend: Backend, part: str, folder: Path, device: str = DEVICE
) -> Variant:
    (variant,) = quantize(checkpoint, [backend], folder, device=device, components=(part,))
    return variant


def _opened(folder: Path, part: str, device: str = DEVICE, **settings: Any) -> Any:
    return model_class(part).from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": device}, local_files_only=True, **settings
    )


def _theirs(checkpoint: Checkpoint, variant: Variant, part: str, device: str = DEVICE) -> Any:
    """The component quantized in memory by its library; no forward pass has repacked it."""
    skipped = variant.component_plans()[part].skipped
    config = variant.backend.library_config(ARCHITECTURES[part], skipped)  # type: ignore[attr-defined]
    return _opened(checkpoint.components[part].path, part, device, quantization_config=config)


@every_part
@every_case
@pytest.mark.usefixtures("no_question_for_a_gpu")
def test_files_equal_save_pretrained_with_every_option(
    name: str, given: dict[str, Any], part: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    variant = _ours(tiny_checkpoint, get_backend(name).configured(given), part, tmp_path / "ours")
    _theirs(tiny_checkpoint, variant, part).save_pretrained(tmp_path / "theirs")
    assert_same_component(variant.root / part, tmp_path / "theirs")


@every_part
@every_case
@pytest.mark.usefixtures("no_question_for_a_gpu")
def test_reloads_as_the_model_in_memory(
    name: str, given: dict[str, Any], part: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The same state, and where the library runs it here, the same output to the last bit."""
    variant = _ours(tiny_checkpoint, get_backend(name).configured(given), part, tmp_path)
    theirs = _theirs(tiny_checkpoint, variant, part)
    reloaded = _opened(variant.root / part, part)
    _assert_same_tensors(reloaded.state_dict(), theirs.state_dict())
    if part == "text_encoder_2":
        tokens = torch.arange(1, 33, device=DEVICE)[None]
        with torch.no_grad():
            have, want = (model.eval()(tokens).last_hidden_state for model in (reloaded, theirs))
        assert torch.equal(have, want)
        assert bool(want.isfinite().all())


@every_part
@every_case
@pytest.mark.usefixtures("no_question_for_a_gpu")
def test_decodes_as_the_library_dequantizes(
    name: str, given: dict[str, Any], part: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    backend = get_backend(name).configured(given)
    variant = _ours(tiny_checkpoint, backend, part, tmp_path, "cpu")
    model = _theirs(tiny_checkpoint, variant, part, "cpu")
    uneven = dict(_dequantized_as_one_row(model))
    plain = _dequantized(model, ARCHITECTURES[part]) | uneven
    decoded = decode_component(variant.root, variant.component_plans()[part])
    ours = {tensor: weight.to(torch.bfloat16) for tensor, weight in decoded}
    _assert_same_tensors(ours, {tensor: plain[tensor] for tensor in ours})


def _dequantized(model: Any, architecture: Architecture) -> dict[str, torch.Tensor]:
    if architecture is FLUX:
        # `model.dequantize()` moves the model to a GPU first, then does this.
        from diffusers.quantizers.bitsandbytes import dequantize_and_replace

        plain = dequantize_and_replace(model, [], model.config.quantization_config)
    else:
        plain = model.dequantize()
    return dict(plain.state_dict())


def _dequantized_as_one_row(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights whose rows are not whole blocks. On a CPU the library decodes them wrong, with the
    scale of another block, unless it takes all of a weight for one row."""
    from bitsandbytes.functional import dequantize_4bit

    for name, weight in model.named_parameters():
        state = getattr(weight, "quant_state", None)
        if state is None or state.shape[-1] % state.blocksize == 0:
            continue
        shape, state.shape = state.shape, (state.shape.numel(),)
        decoded = dequantize_4bit(weight.data, state).view(shape)
        state.shape = shape
        wrong = dequantize_4bit(weight.data, state)
        assert not torch.equal(decoded, wrong), "bitsandbytes has mended it: so can our decoder"
        yield name, decoded.to(torch.bfloat16)


def _assert_same_tensors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, want in theirs.items():
        assert ours[name].dtype == want.dtype, name
        assert torch.equal(ours[name], want), name


# One weight ---------------------------------------------------------------------------------------


LARGE = (2101, 1002)
assert LARGE[0] * LARGE[1] > PIECE


def _planned(backend: Backend, shape: tuple[int, int]) -> PlannedTensor:
    target = Target("a.weight", shape, "linear", (SourceSlice("a.weight", 0, shape[0]),))
    return backend.plan_tensor(target, FLUX)


def _weight(rows: int, columns: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(rows, columns).mul_(0.02).bfloat16()


@pytest.mark.parametrize("given", [{}, DOUBLE], ids=["plain", "double"])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_pieces_give_the_bytes_of_one_call_in_4_bit(quant_type: str, given: dict[str, Any]) -> None:
    """Also where the last piece ends in the middle of a block."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = _weight(*LARGE)
    backend = get_backend(f"bnb-{quant_type}").configured(given)
    planned = _planned(backend, LARGE)
    encoded = backend.encode(weight, planned)
    data, state = quantize_4bit(
        weight, blocksize=64, quant_type=quant_type, compress_statistics=bool(given)
    )
    want = {"a.weight": data}
    want |= {f"a.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    _assert_same_tensors(encoded, want)
    assert [stored.name for stored in planned.stored] == list(want)
    for stored in planned.stored:
        assert encoded[stored.name].nbytes <= stored.nbytes
        assert not stored.settled or tuple(encoded[stored.name].shape) == stored.shape
    assert torch.equal(backend.decode(encoded, planned), dequantize_4bit(data, state))


def test_pieces_give_the_bytes_of_one_call_in_int8() -> None:
    """Also for a row of zeros, which has no scale."""
    import bitsandbytes as bnb

    weight = _weight(*LARGE)
    weight[2099] = 0
    layer = bnb.nn.Linear8bitLt(*LARGE[::-1], bias=False, has_fp16_weights=False, device="meta")
    layer.weight = bnb.nn.Int8Params(weight.clone(), requires_grad=False).to("cpu")
    backend = get_backend("bnb-int8")
    planned = _planned(backend, LARGE)
    encoded = backend.encode(weight, planned)
    _assert_same_tensors(encoded, {f"a.{key}": value for key, value in layer.state_dict().items()})
    decoded = backend.decode(encoded, planned)
    assert float((decoded - weight).abs().max()) <= float(weight.abs().max()) / 127
    assert not decoded[2099].any()


def test_no_mean_is_longer_than_the_plan_allows() -> None:
    """Double quantization writes a number as text: the plan has room for any finite one."""
    from bitsandbytes.functional import QuantState

    backend = get_backend("bnb-nf4").configured(DOUBLE)
    room = _planned(backend, (64, 64)).stored[-1]
    assert not room.settled
    _, state = backend._quantize(_weight(64, 64))  # type: ignore[attr-defined]
    assert isinstance(state, QuantState)
    bits = torch.randint(-(2**63), 2**63 - 1, (4000,), generator=torch.Generator().manual_seed(0))
    numbers = bits.view(torch.float64)
    extreme = torch.tensor([-sys.float_info.min, 5e-324, -sys.float_info.max, 1e-4 / 3, 1e16 / 3])
    longest = 0
    for number in torch.cat([extreme.double(), numbers[numbers.isfinite()]]):
        state.offset = number
        packed = state.as_dict(packed=True)[room.name.removeprefix("a.weight.")]
        assert packed.numel() <= room.nbytes
        longest = max(longest, packed.numel())
    assert longest == room.nbytes


@pytest.mark.parametrize("name", ["bnb-nf4", "bnb-fp4", "bnb-int8"])
@pytest.mark.parametrize(("width", "inner"), [(64, 64), (64, 96), (64, 80), (96, 64), (64, 37)])
def test_says_what_does_not_run_on_a_cpu(name: str, width: int, inner: int, tmp_path: Path) -> None:
    """Where `cannot_run` is silent the library runs it; where it is not, the library fails."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        d_model=width,
        d_ff=inner,
        d_kv=32,
        num_heads=2,
        num_layers=1,
        vocab_size=64,
        feed_forward_proj="gated-gelu",
    )
    source = tmp_path / "text_encoder_2"
    T5EncoderModel(config).bfloat16().save_pretrained(source)
    backend = get_backend(name)
    (variant,) = quantize(open_checkpoint(source), [backend], tmp_path / "ours", device="cpu")
    plan = variant.component_plans()["text_encoder_2"]
    place = (variant.root / plan.files[0].name).parent
    model = _opened(place, "text_encoder_2", "cpu")
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        if backend.cannot_run(T5_ENCODER, plan.config, "cpu") is None:
            assert bool(model(tokens).last_hidden_state.isfinite().all())
        else:
            with pytest.raises((AssertionError, RuntimeError), match=r"divisible|invalid for"):
                model(tokens)


@pytest.mark.parametrize(
    ("name", "given", "names"),
    [
        ("bnb-int8", {"threshold": -0.5}, "threshold"),
        ("bnb-int8", {"threshold": ".inf"}, "threshold"),
        ("bnb-int8", {"threshold": ".nan"}, "threshold"),
        ("bnb-int8", {"double_quant": True}, "double_quant"),
        ("bnb-nf4", {"compute_dtype": "float8"}, "bfloat16, float16, float32"),
        ("bnb-fp4", {"double_quant": "twice"}, "double_quant"),
    ],
)
def test_settings_the_library_lacks_are_refused(
    name: str, given: dict[str, Any], names: str
) -> None:
    with pytest.raises(UsageError, match=names):
        get_backend(name).configured(given)
