"""GGUF at FLUX.1's real width of 3072, the only one that diffusers' GGUF loader takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from card_code import run_card_code
from PIL import Image

from fluxconv.converters import Variant, open_checkpoint, quantize
from fluxconv.converters.backends import get_backend
from fluxconv.converters.gguf.types import TYPES
from fluxconv.hub import push
from fluxconv.hub.rehearsal import running

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent


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
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variant]:
    """Of a pipeline with one double and one single block of real width."""
    folder = tmp_path_factory.mktemp("real-width")
    script = TESTS / "checkpoints" / "synthetic.py"
    options = ["--double", "1", "--single", "1", "--width", "3072", "--heads", "24"]
    tiny = TESTS / "checkpoints" / "tiny-flux"
    subprocess.run(
        [sys.executable, script, folder / "wide-flux", *options, "--from", tiny], check=True
    )
    shutil.copy(tiny / "validation.yaml", folder / "wide-flux")
    (folder / "wide-flux" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    backends = {
        "one type": get_backend("gguf-q8_0"),
        "no quantized type": get_backend("gguf-f16"),
        "upgraded types": get_backend("gguf-q4_k_m"),
        "every type": get_backend("gguf-bf16").configured({"tensor_types": EVERY_TYPE}),
    }
    checkpoint = open_checkpoint(folder / "wide-flux")
    made = quantize(checkpoint, list(backends.values()), folder / "out")
    return dict(zip(backends, made, strict=True))


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


def test_every_type_is_in_one_of_them(variants: dict[str, Variant]) -> None:
    plan = variants["every type"].component_plans()["transformer"]
    assert {stored.dtype for tensor in plan.tensors for stored in tensor.stored} == set(TYPES)


@pytest.mark.parametrize("which", ["one type", "no quantized type", "upgraded types", "every type"])
def test_diffusers_opens_it_and_computes_the_same(which: str, variants: dict[str, Variant]) -> None:
    """Every weight and the output, which is computed in fp32: all that differs is that diffusers
    dequantizes in fp16, whose last place is 2^-10 of a weight. The blocks amplify that."""
    from diffusers import FluxTransformer2DModel, GGUFQuantizationConfig
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    variant = variants[which]
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
    assert not any(p.is_meta for p in native.parameters())
    decoded = _decoded(file, plan.config)
    for name, want in decoded.state_dict().items():
        have = dequantize_gguf_tensor(native.get_parameter(name)).detach().float()
        assert have.shape == want.shape, name
        assert float((have - want).norm() / want.norm()) < 2**-10, name
    with torch.inference_mode():
        have = native(**_inputs(native), return_dict=False)[0]
        want = decoded(**_inputs(decoded), return_dict=False)[0]
    assert want.std() > 0
    assert float((have - want).norm() / want.norm()) < 2**-7


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


def test_code_of_the_published_card_draws(variants: dict[str, Variant], tmp_path: Path) -> None:
    """Loaded from the Hub by diffusers and transformers alone. Noise for a picture: the weights of
    this width are random."""
    with running(tmp_path / "hub") as hub:
        push(
            [variants["one type"]],
            "rehearsal",
            validate_required=False,
            token=hub.token,
            endpoint=hub.url,
        )
        picture = run_card_code("rehearsal/wide-flux-GGUF", hub, tmp_path)
    with Image.open(picture) as image:
        assert image.size == (64, 64)
        assert len(image.getcolors(64 * 64) or range(9999)) > 8
