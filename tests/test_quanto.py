"""quanto's variants beside optimum-quanto's own layers, and how they load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from test_equal_to_library import assert_same_component
from test_layerwise import answer, run_snippet

from fluxconv.converters import Checkpoint, Variant, quantize
from fluxconv.converters.architectures import ARCHITECTURES, FLUX
from fluxconv.converters.backends import get_backend
from fluxconv.converters.backends.base import PlannedTensor, Target
from fluxconv.converters.backends.quanto import Quanto
from fluxconv.converters.backends.quanto_weights import group_size
from fluxconv.converters.errors import BadWeight
from fluxconv.converters.stored import decode_component
from fluxconv.hub.rehearsal import RehearsalHub

NAMES = ("quanto-int8", "quanto-fp8", "quanto-int4", "quanto-int2")
EVERY = [(name, part) for name in NAMES for part in ARCHITECTURES]
#: Rows and columns: in groups of 128, in one group, in groups of 96 and of 32, in rows that no
#: group size divides, with groups that do not fill the last byte, and with more than one piece.
SHAPES = [(64, 256), (6, 64), (6, 96), (6, 192), (6, 160), (6, 200), (9, 160), (3008, 384)]


# Encoding and decoding ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_encodes_what_a_frozen_layer_saves(name: str, shape: tuple[int, int]) -> None:
    """Also a row of one value, and weights that lie on one side of zero."""
    backend, weight = _quanto(name), _weight(shape)
    planned = _planned(backend, shape)
    ours = backend.encode(weight, planned)
    state = _frozen_layer(backend, weight).state_dict(prefix="a.")
    assert ours.keys() == state.keys() == {stored.name for stored in planned.stored}
    for stored in planned.stored:
        have, want = ours[stored.name], state[stored.name].contiguous()
        assert (have.dtype, have.shape) == (want.dtype, want.shape)
        assert have.shape == stored.shape
        assert torch.equal(have.reshape(-1).view(torch.uint8), want.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_decodes_as_a_frozen_layer_does(name: str, shape: tuple[int, int]) -> None:
    backend, weight = _quanto(name), _weight(shape)
    _skip_where_it_cannot_run(backend)
    planned = _planned(backend, shape)
    decoded = backend.decode(backend.encode(weight, planned), planned)
    assert torch.equal(decoded, _frozen_layer(backend, weight).weight.dequantize())


def test_groups_are_those_that_quanto_chooses() -> None:
    from optimum.quanto import QLinear

    for columns in (*range(8, 700, 8), 768, 3072, 12288, 15360):
        layer = QLinear(columns, 4, device="meta", weights="qint4")
        assert group_size(columns) == layer.weight_group_size, columns


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_zeros_stays_one_or_is_refused(name: str) -> None:
    """In fp8, quanto divides it by its scale of zero and stores NaN."""
    backend, weight = _quanto(name), _weight((6, 64))
    weight[1] = 0
    planned = _planned(backend, (6, 64))
    if name == "quanto-fp8":
        assert bool(_frozen_layer(backend, weight).weight.dequantize().isnan().any())
        with pytest.raises(BadWeight, match=r"'a\.weight' has a row of zeros"):
            backend.encode(weight, planned)
    else:
        decoded = backend.decode(backend.encode(weight, planned), planned)
        assert torch.equal(decoded[1], weight[1])


@pytest.mark.slow
def test_nothing_is_compiled_to_encode_and_decode(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """quanto builds an extension as soon as it unpacks 4-bit or 2-bit weights on a CPU itself."""
    code = """
import sys
from pathlib import Path
from optimum.quanto.library.extensions import get_extension
from fluxconv.converters import open_checkpoint, quantize
from fluxconv.converters.stored import decode_component
backends = ["quanto-int4", "quanto-int2"]
for variant in quantize(open_checkpoint(sys.argv[1]), backends, Path(sys.argv[2])):
    for plan in variant.component_plans().values():
        assert all(weight.isfinite().all() for _, weight in decode_component(variant.root, plan))
assert get_extension("quanto_cpp")._lib is None
"""
    subprocess.run([sys.executable, "-c", code, str(tiny_checkpoint.root), tmp_path], check=True)


# Skipping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_skipping_equals_the_library(
    name: str, part: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    backend = get_backend(name).configured({"skip": [r"0\.attn\.to_q", r"block\.1\..*\.[qk]$"]})
    (variant,) = quantize(tiny_checkpoint, [backend], tmp_path, components=(part,))
    skipped = variant.component_plans()[part].skipped
    assert skipped
    source, architecture = tiny_checkpoint.components[part].path, ARCHITECTURES[part]
    model = backend.quantize_with_library(source, architecture, skipped, "cpu")
    backend.save_with_library(model, tmp_path / "library", architecture)
    assert_same_component(variant.root / part, tmp_path / "library")


def test_the_plan_says_what_a_skipped_module_takes_with_it(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """diffusers skips by the last part of a name."""
    backend = get_backend("quanto-int8").configured({"skip": [r"single.*\.0\.attn\.to_q"]})
    (variant,) = quantize(tiny_checkpoint, [backend], tmp_path, components=("transformer",))
    plan = variant.component_plans()["transformer"]
    assert plan.config["quantization_config"]["modules_to_not_convert"] == ["to_q"]
    assert plan.reasons["kept: skipped as asked"] == 1
    taken = "kept: skipped with every other 'to_q', which diffusers cannot tell apart"
    assert plan.reasons[taken] == 3


# Loading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_a_reloaded_variant_answers_as_the_library_does(
    name: str, part: str, tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    """To the bit, against the model that the library quantized in memory."""
    variant, architecture = tiny_variants[name], ARCHITECTURES[part]
    _skip_where_it_cannot_run(variant.backend)
    source = tiny_checkpoint.components[part].path
    want = answer(variant.backend.quantize_with_library(source, architecture, (), "cpu"), part)
    files = tuple(variant.manifest.components[part].files)
    assert torch.equal(answer(variant.backend.load(variant.root, part, files, "cpu"), part), want)


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_decodes_the_weights_that_a_reloaded_variant_has(
    name: str, part: str, tiny_variants: dict[str, Variant]
) -> None:
    variant = tiny_variants[name]
    _skip_where_it_cannot_run(variant.backend)
    plan = variant.component_plans()[part]
    model = variant.backend.load(variant.root, part, (), "cpu")
    weights = dict(model.named_parameters())
    for tensor, weight in decode_component(variant.root, plan):
        assert torch.equal(weight, weights[tensor].dequantize()), tensor


@pytest.mark.slow
@pytest.mark.parametrize("parts", [tuple(ARCHITECTURES), ("text_encoder_2",)])
def test_the_snippet_loads_what_was_quantized(
    parts: tuple[str, ...],
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
    hub: RehearsalHub,
    api: HfApi,
    repo: str,
) -> None:
    """Also where T5 alone was quantized."""
    (variant,) = quantize(tiny_checkpoint, ["quanto-int8"], tmp_path, components=parts)
    assert run_snippet(variant, repo, hub, api, tmp_path)


def test_says_so_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "a-compiler-that-is-not-there")
    for name in NAMES:
        why = get_backend(name).cannot_run(FLUX, {}, "cpu")
        assert (why is not None) == (name in ("quanto-int4", "quanto-int2")), name


# Helpers ----------------------------------------------------------------------------------------


def _quanto(name: str) -> Quanto:
    found = get_backend(name)
    assert isinstance(found, Quanto)
    return found


def _skip_where_it_cannot_run(backend: object) -> None:
    assert isinstance(backend, Quanto)
    why = backend.cannot_run(FLUX, {}, "cpu")
    if why is not None:
        pytest.skip(why)


def _weight(shape: tuple[int, int]) -> torch.Tensor:
    torch.manual_seed(0)
    weight = torch.randn(shape) * 0.05
    weight[: shape[0] // 2] += 0.1
    weight[1] = 0.25
    return weight.bfloat16()


def _planned(backend: Quanto, shape: tuple[int, int]) -> PlannedTensor:
    return backend.plan_tensor(Target("a.weight", shape, "linear", ()), FLUX)


def _frozen_layer(backend: Quanto, weight: torch.Tensor) -> torch.nn.Linear:
    from optimum.quanto import QLinear

    rows, columns = weight.shape
    layer = QLinear(columns, rows, bias=False, dtype=weight.dtype, weights=backend.weights.qtype)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.freeze()
    assert isinstance(layer, torch.nn.Linear)
    return layer
