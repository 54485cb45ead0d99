"""What would take more memory than there is, is refused with numbers before it is tried."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.backends import get_backend
from fluxconv.converters.component import Component
from fluxconv.converters.modes import MODES, get_mode
from fluxconv.converters.planning import plan_component
from fluxconv.validators import Settings
from fluxconv.validators.machine import free_memory, this_machine
from fluxconv.validators.memory import Part, needed, pipeline_parts, quantized_part, source_part

GIB = 2**30
#: FLUX.1-dev's sizes, where the tiny Flux's differ.
FULL = {
    "transformer": {
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "axes_dims_rope": [16, 56, 56],
    },
    "text_encoder_2": {
        "d_model": 4096,
        "d_ff": 10240,
        "num_heads": 64,
        "num_layers": 24,
        "vocab_size": 32128,
    },
}
#: GiB that diffusers' quantization guide measured on an H100 after loading FLUX.1-dev, both
#: components quantized: https://huggingface.co/blog/diffusers-quantization
PUBLISHED = {"bnb-nf4": 12.584, "bnb-int8": 19.273, "torchao-int8": 17.020, "quanto-int8": 17.330}
PUBLISHED_BF16 = 31.447
#: CLIP and VAE, of which the guide gives the sizes, too.
OTHERS = (0.246 + 0.168) * 1e9
#: transformers 4, of which the guide is, kept T5's `wo` in fp32 beside bitsandbytes' layers.
FP32_WO = 24 * 4096 * 10240 * 2
#: Draws squares of so many pixels with so many bytes of address space left, one after the other.
LIMITED = """
import resource, sys
from fluxconv.converters import open_checkpoint
from fluxconv.converters.errors import NotEnoughMemory
from fluxconv.validators import load_settings
from fluxconv.validators.drawing import SOURCE, draw_picture, opened, pictures_of
from fluxconv.validators.machine import status_bytes
from fluxconv.validators.memory import import_libraries
import_libraries()
source = open_checkpoint(sys.argv[1])
for text in sys.argv[2:]:
    room, pixels = map(int, text.split("/"))
    settings = load_settings(source.root, {"steps": 1, "height": pixels, "width": pixels})
    limit = status_bytes("VmSize") + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        pipeline, _ = opened(source.opening, SOURCE, "cpu", "plain", settings)
        draw_picture(pipeline, pictures_of(settings)[0], settings)
        print("drawn")
    except NotEnoughMemory as error:
        print(error)
"""


@pytest.fixture(scope="module")
def full(tiny_checkpoint: Checkpoint) -> dict[str, Component]:
    """FLUX.1-dev's components, as far as their sizes go."""
    return {
        name: replace(component, config={**component.config, **FULL[name]})
        for name, component in tiny_checkpoint.components.items()
    }


def test_full_size_in_bf16_takes_what_was_published(full: dict[str, Component]) -> None:
    parts = {name: source_part(component) for name, component in full.items()}
    assert parts["transformer"].weights == pytest.approx(23.8e9, rel=0.01)
    assert parts["text_encoder_2"].weights == pytest.approx(9.52e9, rel=0.01)
    total = sum(part.weights for part in parts.values()) + OTHERS
    assert total == pytest.approx(PUBLISHED_BF16 * GIB, rel=0.02)


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_quantized_takes_about_what_was_published(
    name: str, full: dict[str, Component], tiny_checkpoint: Checkpoint
) -> None:
    backend = get_backend(name)
    plans = [plan_component(tiny_checkpoint, component, backend) for component in full.values()]
    total = sum(quantized_part(plan, native=True).weights for plan in plans) + OTHERS
    if name.startswith("bnb"):
        total += FP32_WO
    # The guide's figures are what torch had reserved, which is more than what it used.
    assert 0.9 * PUBLISHED[name] < total / GIB < 1.02 * PUBLISHED[name]


def test_full_size_peaks_are_the_published_ones(
    full: dict[str, Component], tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The guide drew 1024 x 1024 pixels; 36.166 GiB in all, 23.271 one component at a time."""
    root = shutil.copytree(tiny_checkpoint.root, tmp_path / "full")
    vae = json.loads((root / "vae" / "config.json").read_text())
    vae["block_out_channels"] = [128, 256, 512, 512]
    (root / "vae" / "config.json").write_text(json.dumps(vae))
    whole = replace(tiny_checkpoint, root=root, components=full)
    settings = Settings(prompts=("x",), height=1024, width=1024)
    parts = pipeline_parts(whole, "cuda", settings)
    gpu = {name: needed(parts, "cuda", mode).gpu / GIB for name, mode in MODES.items()}
    assert gpu["plain"] == pytest.approx(36.166, rel=0.03)
    assert gpu["offload-model"] == pytest.approx(23.271, rel=0.03)
    assert gpu["offload-group"] < gpu["offload-model"] / 3
    assert gpu["compile"] == gpu["plain"]


def test_decoded_component_takes_two_bytes_a_weight(
    full: dict[str, Component], tiny_checkpoint: Checkpoint
) -> None:
    plan = plan_component(tiny_checkpoint, full["transformer"], get_backend("gguf-q4_k_s"))
    native, decoded = quantized_part(plan, native=True), quantized_part(plan, native=False)
    assert native.weights < 7.5e9
    assert decoded.weights == pytest.approx(23.8e9, rel=0.01)


def test_transformers_decodes_gguf_when_it_loads(
    full: dict[str, Component], tiny_checkpoint: Checkpoint
) -> None:
    plan = plan_component(tiny_checkpoint, full["text_encoder_2"], get_backend("gguf-q4_k_s"))
    assert quantized_part(plan, native=True).weights == pytest.approx(9.52e9, rel=0.01)


def test_every_model_of_a_variant_is_counted(tiny_variants: dict[str, Variant]) -> None:
    settings = Settings(prompts=("x",), height=64, width=64)
    parts = pipeline_parts(tiny_variants["torchao-int8"], "cpu", settings)
    names = {part.name for part in parts}
    assert names == {"transformer", "text_encoder_2", "text_encoder", "vae"}
    assert all(part.weights > 0 and part.loading >= part.weights for part in parts)


def test_loading_may_take_more_than_what_is_loaded() -> None:
    part = Part("transformer", weights=10, loading=25, layer=2, work=5)
    plain = get_mode("plain")
    assert (
        needed((part,), "cpu", plain).main - needed((replace(part, loading=10),), "cpu", plain).main
        == 10
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits on address space are Linux's")
def test_refusal_comes_before_the_crash(tiny_checkpoint: Checkpoint) -> None:
    cases = ("200000000/64", "2500000000/8192", "2500000000/64")
    words = [sys.executable, "-c", LIMITED, str(tiny_checkpoint.root), *cases]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    no_room, too_large, fits = done.stdout.splitlines()
    assert "takes about" in no_room and "and 0 MB is free" in no_room
    assert "tiny-flux: drawing 8192 x 8192 pixels takes about 25.9 GB of main memory" in too_large
    assert "and 2.2 GB is free; end other programs" in too_large
    assert fits == "drawn"


def test_this_machine_is_told_in_full() -> None:
    machine = this_machine("cpu")
    assert machine.cores > 0 and machine.processor and machine.gpu is None
    assert 0 < free_memory() <= machine.memory
