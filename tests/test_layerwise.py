"""Variants in float8 without scales beside diffusers' layerwise casting."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from test_equal_to_library import assert_same_component

from fluxconv.converters import Checkpoint, Variant, quantize
from fluxconv.converters.architectures import ARCHITECTURES, FLUX
from fluxconv.converters.backends import get_backend
from fluxconv.converters.backends.base import Target
from fluxconv.converters.backends.layerwise import DEFAULT_PATTERNS
from fluxconv.converters.errors import BadWeight
from fluxconv.converters.load import load_variant
from fluxconv.converters.stored import decode_component
from fluxconv.hub.rehearsal import RehearsalHub

NAME = "fp8-layerwise"
#: Settings beside which modules stay: by the end of a path, by a path that others lie in, by all.
SETTINGS = [
    {"storage_dtype": "float8_e5m2"},
    {"skip": [r"to_q$", r"\.[qk]$"]},
    {"skip": [r"^transformer_blocks\.1$", r"block\.1$"]},
    {"skip": ["^$"]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("part", ARCHITECTURES)
def test_settings_do_what_they_do_in_diffusers(
    part: str, settings: dict[str, object], tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    backend = get_backend(NAME).configured(settings)
    (variant,) = quantize(tiny_checkpoint, [backend], tmp_path, components=(part,))
    source, architecture = tiny_checkpoint.components[part].path, ARCHITECTURES[part]
    model = backend.quantize_with_library(source, architecture, (), "cpu")
    backend.save_with_library(model, tmp_path / "library", architecture)
    assert_same_component(variant.root / part, tmp_path / "library")


@pytest.mark.parametrize("part", ARCHITECTURES)
def test_a_reloaded_variant_answers_as_the_library_does(
    part: str, tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    """To the bit, as the cast model and as a bf16 model of the decoded weights do."""
    variant, architecture = tiny_variants[NAME], ARCHITECTURES[part]
    source = tiny_checkpoint.components[part].path
    model = variant.backend.quantize_with_library(source, architecture, (), "cpu")
    want = answer(model, part)
    reloaded = variant.backend.load(variant.root, part, (), "cpu")
    assert torch.equal(answer(reloaded, part), want)
    assert _types(reloaded) == _types(model)
    weights = dict(decode_component(variant.root, variant.component_plans()[part]))
    plain = type(model).from_pretrained(source, dtype=torch.bfloat16)  # type: ignore[attr-defined]
    plain.load_state_dict(weights, strict=False)
    assert torch.equal(answer(plain, part), want)


def test_the_pipeline_keeps_the_prompt_in_bf16(tiny_variants: dict[str, Variant]) -> None:
    """It casts the encoded prompt to T5's `dtype`, which is that of T5's first parameter."""
    variant = tiny_variants[NAME]
    model = variant.backend.load(variant.root, "text_encoder_2", (), "cpu")
    assert model.dtype == torch.bfloat16


def test_t5_needs_its_own_patterns(tiny_checkpoint: Checkpoint) -> None:
    """With diffusers' patterns alone, T5 casts the input of `wo` to float8, and fails."""
    from diffusers.hooks import apply_layerwise_casting
    from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
    from transformers import T5EncoderModel

    assert DEFAULT_PATTERNS == DEFAULT_SKIP_MODULES_PATTERN
    model = T5EncoderModel.from_pretrained(
        tiny_checkpoint.components["text_encoder_2"].path, dtype=torch.bfloat16
    )
    apply_layerwise_casting(model, torch.float8_e4m3fn, torch.bfloat16)
    assert model.dtype == torch.float8_e4m3fn
    with pytest.raises(RuntimeError, match="same dtype"):
        answer(model, "text_encoder_2")


def test_the_plan_says_why_a_tensor_stays(tiny_variants: dict[str, Variant]) -> None:
    plans = tiny_variants[NAME].component_plans()
    assert plans["transformer"].reasons == {
        "quantized": 84,
        "kept: layerwise casting leaves out 'norm'": 14,
        "kept: norm": 12,
        "kept: layerwise casting leaves out '^proj_out$'": 2,
    }
    assert plans["text_encoder_2"].reasons == {
        "quantized": 12,
        "kept: norm": 5,
        "kept: T5 wo, to whose stored type T5 casts its input": 2,
        "kept: embedding, whose type the encoded prompt is cast to": 1,
        "kept: relative position bias": 1,
    }


@pytest.mark.parametrize(
    ("storage_dtype", "largest", "beyond"),
    [("float8_e4m3fn", 448.0, 512.0), ("float8_e5m2", 57344.0, 65536.0)],
)
def test_a_weight_beyond_the_range_is_refused(
    storage_dtype: str, largest: float, beyond: float
) -> None:
    """The cast alone would write another number, or infinity, without a word."""
    backend = get_backend(NAME).configured({"storage_dtype": storage_dtype})
    planned = backend.plan_tensor(Target("a.weight", (2, 2), "linear", ()), FLUX)
    for sign in (1, -1):
        weight = torch.tensor([[1.0, sign * largest], [0.0, 2.0]]).bfloat16()
        assert torch.equal(backend.decode(backend.encode(weight, planned), planned), weight)
        weight[1, 0] = sign * beyond
        said = re.escape(f"'a.weight' holds {beyond:g}, beyond the {largest:g} of {storage_dtype}")
        with pytest.raises(BadWeight, match=said):
            backend.encode(weight, planned)


@pytest.mark.slow
def test_the_snippet_loads_what_was_quantized(
    tiny_variants: dict[str, Variant], tmp_path: Path, hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    assert run_snippet(tiny_variants[NAME], repo, hub, api, tmp_path)


# Helpers, `test_quanto.py`'s too -----------------------------------------------------------------


def answer(model: torch.nn.Module, part: str) -> torch.Tensor:
    """What a component of the tiny pipeline makes of a fixed input."""
    torch.manual_seed(0)
    inputs: dict[str, torch.Tensor] = {"input_ids": torch.arange(40)[None]}
    if part == "transformer":
        inputs = {
            "hidden_states": torch.randn(1, 16, 16).bfloat16(),
            "encoder_hidden_states": torch.randn(1, 8, 256).bfloat16(),
            "pooled_projections": torch.randn(1, 64).bfloat16(),
            "timestep": torch.tensor([0.5]).bfloat16(),
            "guidance": torch.tensor([3.5]).bfloat16(),
            "img_ids": torch.zeros(16, 3),
            "txt_ids": torch.zeros(8, 3),
        }
    with torch.no_grad():
        found: torch.Tensor = model(**inputs)[0]
    assert bool(found.isfinite().all())
    return found


def run_snippet(
    variant: Variant, repository: str, hub: RehearsalHub, api: HfApi, folder: Path
) -> bool:
    """Whether the snippet, run by somebody who has nothing else, gives the pipeline that
    `load_variant` gives, with the same weights in use and the same latents."""
    drawing = """
pipe.to("cpu")
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator("cpu").manual_seed(0)
latents = pipe(
    prompt="a red triangle", height=64, width=64, num_inference_steps=2, max_sequence_length=32,
    output_type="latent", generator=generator,
).images
"""
    files = {name: part.files[0] for name, part in variant.manifest.components.items()}
    api.upload_folder(repo_id=repository, folder_path=variant.root)
    code = variant.backend.snippet(repository, files) + drawing + "torch.save(latents, 'latents')"
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": hub.token}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours = {"pipe": load_variant(variant, "cpu")[0], "torch": torch}
    exec(drawing, ours)
    return torch.equal(torch.load(folder / "latents"), ours["latents"])


def _types(model: torch.nn.Module) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in model.state_dict().items()}
