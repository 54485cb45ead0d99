"""GGUF at FLUX.1's real width of 3072, the only one that diffusers' GGUF loader takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from card_code import run_card_code
from PIL import Image

from fluxconv.converters import Variant, open_checkpoint, quantize
from fluxconv.converters.backends import all_backends, get_backend
from fluxconv.converters.gguf.types import TYPES
from fluxconv.converters.planning import ComponentPlan
from fluxconv.hub import push
from fluxconv.hub.rehearsal import running

TESTS = Path(__file__).parent

BACKENDS = tuple(name for name in all_backends() if name.startswith("gguf-"))
#: One file that holds every type, and the one whose card is run; the others take many minutes.
FEW = ("every type", "gguf-q8_0")
OTHERS = tuple(name for name in BACKENDS if name not in FEW)
#: Every type in one file, a K type for the swapped halves of the output's modulation among them.
EVERY_TYPE = (
    "adaLN=Q4_K",
    "img_mod=Q2_K",
    "txt_mod=Q3_K",
    "img_attn.qkv=Q4_K",
    "img_attn.proj=Q5_K",
    "txt_attn.qkv=Q6_K",
    "txt_attn.proj=IQ4_XS",
    "img_mlp.0=IQ4_NL",
    "img_mlp.2=Q8_0",
    "txt_mlp.0=Q5_1",
    "txt_mlp.2=Q5_0",
    "linear1=Q4_1",
    "linear2=Q4_0",
    "modulation|time_in|img_in=F16",
    "txt_in=F32",
)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Variant]]:
    """Those of `FEW`."""
    yield from _made(tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Variant]]:
    """One for each other GGUF backend."""
    yield from _made(tmp_path_factory.mktemp("others"), OTHERS)


def _made(folder: Path, names: tuple[str, ...]) -> Iterator[dict[str, Variant]]:
    """In one pass over a pipeline with one double and one single block of real width. Half a GB
    each, which go when the tests are done."""
    script = TESTS / "checkpoints" / "synthetic.py"
    options = ["--double", "1", "--single", "1", "--width", "3072", "--heads", "24"]
    tiny = TESTS / "checkpoints" / "tiny-flux"
    subprocess.run(
        [sys.executable, script, folder / "wide-flux", *options, "--from", tiny], check=True
    )
    shutil.copy(tiny / "validation.yaml", folder / "wide-flux")
    (folder / "wide-flux" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    mixed = get_backend("gguf-bf16").configured({"tensor_types": EVERY_TYPE})
    backends = {n: mixed if n == "every type" else get_backend(n) for n in names}
    checkpoint = open_checkpoint(folder / "wide-flux")
    made = quantize(checkpoint, list(backends.values()), folder / "out")
    yield dict(zip(backends, made, strict=True))
    shutil.rmtree(folder)


def _inputs(transformer: Any) -> dict[str, Any]:
    generator = torch.Generator("cpu").manual_seed(0)
    config = transformer.config

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "hidden_states": noise(1, 16, config.in_channels),
        "encoder_hidden_states": noise(1, 8, config.joint_attention_dim),
        "pooled_projections": noise(1, config.pooled_projection_dim),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.5]),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(8, 3),
    }


def _opened(variant: Variant) -> tuple[Any, Any, ComponentPlan]:
    """diffusers' model of the file, the plain model of the weights that gguf-py decodes, the plan.

    Both compute in fp32: all that differs is that diffusers dequantizes in fp16.
    """
    from diffusers import FluxTransformer2DModel, GGUFQuantizationConfig

    plan = variant.component_plans()["transformer"]
    assert plan.backend.cannot_run(plan.architecture, plan.config, "cpu") is None
    file = variant.root / plan.files[0].name
    native = FluxTransformer2DModel.from_single_file(
        str(file),
        config=str(variant.root),
        subfolder="transformer",
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        dtype=torch.float32,
        local_files_only=True,
    )
    return native, _decoded(file, plan.config), plan


def _output(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**_inputs(model), return_dict=False)[0]
    assert found.std() > 0
    return found


@pytest.fixture
def said_by_loader(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The warnings of diffusers' loader; it has one for weights that the model does not have."""
    from diffusers.utils.logging import disable_propagation, enable_propagation

    enable_propagation()
    yield lambda: [r.getMessage() for r in caplog.records if r.name.startswith("diffusers.loaders")]
    disable_propagation()


@pytest.mark.slow
def test_every_type_is_in_one_of_them(few: dict[str, Variant]) -> None:
    plan = few["every type"].component_plans()["transformer"]
    assert {stored.dtype for tensor in plan.tensors for stored in tensor.stored} == set(TYPES)


@pytest.mark.parametrize(
    ("which", "made"),
    [
        *(pytest.param(name, "few", marks=pytest.mark.slow) for name in FEW),
        *(pytest.param(name, "others", marks=pytest.mark.wide) for name in OTHERS),
    ],
)
def test_diffusers_finds_the_planned_types_and_computes_the_same(
    which: str,
    made: str,
    said_by_loader: Callable[[], list[str]],
    request: pytest.FixtureRequest,
) -> None:
    """diffusers dequantizes in fp16, whose last place is 2^-10 of a weight; the blocks amplify
    that. With weights so rounded, a plain model's output is diffusers' bit for bit."""
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    native, decoded, plan = _opened(request.getfixturevalue(made)[which])
    assert said_by_loader() == []
    assert _types_found(native) == _types_planned(plan)
    found, wanted = _output(native), _output(decoded)
    assert float((found - wanted).norm() / wanted.norm()) < 2**-7
    for name, weight in decoded.state_dict().items():
        rounded = dequantize_gguf_tensor(native.get_parameter(name)).detach().float()
        assert rounded.shape == weight.shape, name
        assert float(weight.sub_(rounded).norm() / rounded.norm()) < 2**-10, name
        weight.copy_(rounded)
    assert torch.equal(found, _output(decoded))


def _types_planned(plan: ComponentPlan) -> dict[str, str]:
    """By diffusers' names. What is stored in F16 and F32 becomes a plain parameter, in the dtype
    that is asked for."""
    plain = dict.fromkeys(("F16", "F32"), str(torch.float32))
    return {
        part.tensor: plain.get(tensor.stored[0].dtype, tensor.stored[0].dtype)
        for tensor in plan.tensors
        for part in tensor.target.slices
    }


def _types_found(native: Any) -> dict[str, str]:
    """Of the parameters that were in the file; the others stay on the meta device."""
    return {
        name: weight.quant_type.name if hasattr(weight, "quant_type") else str(weight.dtype)
        for name, weight in native.named_parameters()
        if not weight.is_meta
    }


def _decoded(file: Path, config: Mapping[str, Any]) -> Any:
    """The plain model of the weights that gguf-py decodes. diffusers gives them their names; each
    must have one, and none may be left over."""
    import gguf
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.single_file_utils import (
        convert_flux_transformer_checkpoint_to_diffusers as converted,
    )

    left = {
        tensor.name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        for tensor in gguf.GGUFReader(file).tensors
    }
    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config(config)
    model.load_state_dict(converted(left), strict=True, assign=True)
    assert not left
    return model


@pytest.mark.slow
def test_code_of_the_published_card_draws(few: dict[str, Variant], tmp_path: Path) -> None:
    """Loaded from the Hub by diffusers and transformers alone. Noise for a picture: the weights of
    this width are random."""
    with running(tmp_path / "hub") as hub:
        push(
            [few["gguf-q8_0"]],
            "rehearsal",
            validate_required=False,
            token=hub.token,
            endpoint=hub.url,
        )
        picture = run_card_code("rehearsal/wide-flux-GGUF", hub, tmp_path)
    with Image.open(picture) as image:
        assert image.size == (64, 64)
        assert len(image.getcolors(64 * 64) or range(9999)) > 8
