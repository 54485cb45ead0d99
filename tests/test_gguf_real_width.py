"""GGUF at FLUX.1's real width of 3072, the only one that diffusers' GGUF loader takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from card_code import run_card_code
from PIL import Image

from fluxconv.converters import Variant, open_checkpoint, quantize
from fluxconv.converters.backends import get_backend
from fluxconv.converters.gguf.types import TYPES
from fluxconv.converters.load import load_decoded
from fluxconv.hub import push
from fluxconv.hub.rehearsal import running

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent


#: Every type in one file, the swapped halves of the output's modulation among them.
EVERY_TYPE = (
    "img_attn=Q8_0",
    "txt_attn=Q5_1",
    "img_mlp|time_in=Q5_0",
    "txt_mlp|adaLN=Q4_1",
    "single_blocks.*linear=Q4_0",
    "_mod|img_in=F16",
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
        "every type": get_backend("gguf-bf16").configured({"tensor_types": EVERY_TYPE}),
    }
    checkpoint = open_checkpoint(folder / "wide-flux")
    made = quantize(checkpoint, list(backends.values()), folder / "out")
    return dict(zip(backends, made, strict=True))


def _inputs(transformer: Any) -> dict[str, Any]:
    generator = torch.Generator("cpu").manual_seed(0)
    config = transformer.config

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(torch.bfloat16)

    return {
        "hidden_states": noise(1, 16, config.in_channels),
        "encoder_hidden_states": noise(1, 8, config.joint_attention_dim),
        "pooled_projections": noise(1, config.pooled_projection_dim),
        "timestep": torch.tensor([0.5], dtype=torch.bfloat16),
        "guidance": torch.tensor([3.5], dtype=torch.bfloat16),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(8, 3),
    }


def test_every_type_is_in_one_of_them(variants: dict[str, Variant]) -> None:
    plan = variants["every type"].component_plans()["transformer"]
    assert {stored.dtype for tensor in plan.tensors for stored in tensor.stored} == set(TYPES)


@pytest.mark.parametrize("which", ["one type", "no quantized type", "every type"])
def test_diffusers_opens_it_and_computes_the_same(which: str, variants: dict[str, Variant]) -> None:
    variant = variants[which]
    plan = variant.component_plans()["transformer"]
    assert plan.backend.cannot_run(plan.architecture, plan.config, "cpu") is None
    files = tuple(file.name for file in plan.files)
    native = plan.backend.load(variant.root, "transformer", files, "cpu")
    assert not any(p.is_meta for p in native.parameters())
    decoded = load_decoded(variant.root, plan)
    with torch.inference_mode():
        have = native(**_inputs(native), return_dict=False)[0].float()
        want = decoded(**_inputs(decoded), return_dict=False)[0].float()
    assert want.std() > 0
    # Both compute in bf16 (8 bits of mantissa); diffusers dequantizes in fp16, gguf-py in fp32.
    assert float((have - want).norm() / want.norm()) < 0.02


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
