"""What every backend makes of FLUX.1-dev, for `fluxconv recommend` where no variant is at hand.

    python benchmarks/flux_dev.py
    python benchmarks/flux_dev.py --reports out     variants of the tiny Flux, validated

writes `validators/flux_dev.yaml`. Sizes need no weights: they are planned from configs and headers
of FLUX.1-dev's geometry, and are exact. Errors are those of the tiny Flux of `tests/checkpoints`,
as the full model is not at hand: of its weights, measured here, and of its steps, from reports.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from fluxconv.converters import open_checkpoint, open_variant, quantize
from fluxconv.converters.backends import all_backends
from fluxconv.converters.manifest import ComponentRecord, Manifest, SourceRecord
from fluxconv.converters.progress import Silent
from fluxconv.converters.variant import Variant
from fluxconv.validators.memory import pipeline_parts
from fluxconv.validators.report import Settings, read_report
from fluxconv.validators.weights import compare_weights

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ROOT / "tests" / "checkpoints"
OUTPUT = ROOT / "validators" / "flux_dev.yaml"
SETTINGS = {"height": 1024, "width": 1024}
sys.path.insert(0, str(CHECKPOINTS))

HEADER = """\
# What `fluxconv recommend` knows of FLUX.1-dev where no variant is at hand. Written by
# `python benchmarks/flux_dev.py`; do not edit.
#
# `files` are exact bytes on disk, but for the tokenizer that T5's GGUF files also hold. `weights`,
# `loading`, `layer` and `work` are bytes of memory as `memory.Part` has them, for pictures of the
# size under `settings`. The errors are not those of FLUX.1-dev, which has not been measured, but of
# the tiny Flux of tests/checkpoints (relative RMS): `weight_error` of its transformer's weights,
# `step_error` of its steps. Null was not measured.
"""


def write_geometry(folder: Path) -> None:
    """A pipeline folder of FLUX.1-dev's geometry: configs, and CLIP and the VAE without data."""
    import synthetic
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config

    transformer = {"_class_name": "FluxTransformer2DModel", **synthetic.transformer_config()}
    t5 = T5Config(**synthetic.t5_config(), architectures=["T5EncoderModel"]).to_dict()
    for name, config in (("transformer", transformer), ("text_encoder_2", t5)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        clip = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072))
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=16,
            layers_per_block=2,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    _write_header(folder / "text_encoder" / "model.safetensors", clip)
    _write_header(folder / "vae" / "diffusion_pytorch_model.safetensors", vae)
    vae.save_config(folder / "vae")
    index = {"_class_name": "FluxPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))


def _write_header(file: Path, model: Any) -> None:
    """A safetensors file of the model's parameters in bf16, a hole where their data would be."""
    header, end = {}, 0
    for name, tensor in model.named_parameters():
        begin, end = end, end + 2 * math.prod(tensor.shape)
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.parent.mkdir()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)


def sizes(folder: Path, backend: str, device: str) -> dict[str, dict[str, int]]:
    """Bytes on disk, and in memory on `device`, of each component as the backend makes it."""
    record = ComponentRecord(
        files=[], loader="", bits_per_weight=0, weight_bytes=0, source_bytes=0, quantized=0, kept=[]
    )
    components = ("transformer", "text_encoder_2")
    manifest = Manifest(
        name=f"FLUX.1-dev-{backend}",
        checkpoint="FLUX.1-dev",
        backend=backend,
        options={},
        source=SourceRecord(
            id="black-forest-labs/FLUX.1-dev", revision=None, files={}, metadata={}
        ),
        versions={},
        device="cpu",
        bits_per_weight=0,
        components=dict.fromkeys(components, record),
        files={},
    )
    variant = Variant(folder, manifest)
    plans = variant.component_plans()
    settings = Settings.model_validate({**SETTINGS, "prompts": ("",)})
    found = {}
    for part in pipeline_parts(variant, device, settings):
        found[part.name] = {key: value for key, value in asdict(part).items() if key != "name"}
        if part.name in plans:
            found[part.name] = {"files": plans[part.name].nbytes, **found[part.name]}
    return found


def weight_errors() -> dict[str, float]:
    """The relative error of the tiny Flux's transformer for each backend that a CPU can encode."""
    source = open_checkpoint(CHECKPOINTS / "tiny-flux")
    names = [name for name, each in all_backends().items() if "cpu" in each.quantizes_on]
    with tempfile.TemporaryDirectory() as folder:
        made = quantize(source, names, Path(folder), device="cpu")
        return {
            variant.manifest.backend: compare_weights(variant.root, source, Silent())[
                "transformer"
            ].relative_rms
            for variant in made
        }


def step_errors(folder: Path | None) -> dict[str, float]:
    """The relative error of the tiny Flux's steps, from the reports of the variants in a folder."""
    found = {}
    for place in sorted(folder.glob("*/fluxconv.json")) if folder else ():
        variant = open_variant(place.parent)
        report = read_report(variant)
        if report is not None and report.steps is not None:
            found[variant.backend.label] = report.steps.relative_rms
    return found


@click.command(help=__doc__)
@click.option(
    "--reports",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with validated variants of the tiny Flux.",
)
def main(reports: Path | None) -> None:
    weights, steps = weight_errors(), step_errors(reports)
    backends: dict[str, Any] = {}
    others: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_geometry(folder)
        for name, backend in all_backends().items():
            for device in backend.runs_on:
                found = sizes(folder, name, device)
                others[device] = {part: found.pop(part) for part in ("text_encoder", "vae")}
            backends[name] = {
                **found,
                "weight_error": _rounded(weights.get(name)),
                "step_error": _rounded(steps.get(name)),
            }
    data = {"settings": SETTINGS, "others": others, "backends": backends}
    OUTPUT.write_text(HEADER + yaml.safe_dump(data, sort_keys=False), "utf-8")
    click.echo(f"{OUTPUT}: {len(backends)} backends")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


if __name__ == "__main__":
    main()
