"""stable-diffusion.cpp's command line program, and what it says about the files it is given.

It names a transformer's tensors `model.diffusion_model.*` and T5's `text_encoders.t5xxl.*`, and
draws without T5 if it has a CLIP model. CLIP's sizes and T5's are fixed in it; the transformer's
depth and width are found from its tensors.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import building
import click
from streaming import Run, measure

_STAT = re.compile(r"(Conditioner|Diffusion model) weight type stat: *(.*)")
_COMPLAINT = re.compile(r"tensor '([^']+)'|\[ERROR\] (.*)")


@dataclass(frozen=True)
class Seen:
    """What the program says as it opens files.

    `types` counts the tensors of each type, upper case, in the transformer or the text encoders;
    `complaints` are the tensors, and the errors without one, that it is not content with.
    """

    version: str
    types: Mapping[str, Counter[str]]
    complaints: tuple[str, ...]


def convert(source: Path, output: Path, type_name: str) -> Run:
    """Run its `convert` mode, which writes every weight that it quantizes as `type_name`."""
    program = str(building.stable_diffusion())
    words = ["--mode", "convert", "--model", str(source), "--output", str(output)]
    return measure([program, *words, "--type", type_name])


def draw(files: Mapping[str, Path], picture: Path) -> Seen:
    """Open `files`, by their options, and draw one step of 64 x 64 pixels if nothing is missing."""
    picture.unlink(missing_ok=True)
    chosen = [word for option, file in files.items() for word in (f"--{option}", str(file))]
    how = ["-p", "a star", "-W", "64", "-H", "64", "--steps", "1", "--cfg-scale", "1"]
    done = subprocess.run(
        [str(building.stable_diffusion()), *chosen, *how, "-o", str(picture)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    said = done.stdout
    version = re.search(r"Version: (.*?) *$", said, re.MULTILINE)
    if version is None:
        raise click.ClickException(f"stable-diffusion.cpp opened nothing:\n{said[-2000:]}")
    types = {
        part: Counter(
            {name.upper(): int(count) for name, count in re.findall(r"(\w+): (\d+)", counts)}
        )
        for part, counts in _STAT.findall(said)
    }
    complaints = tuple(name or error for name, error in _COMPLAINT.findall(said))
    return Seen(version.group(1), types, complaints)


def companions(folder: Path) -> dict[str, Path]:
    """Random weights, by their options, for the parts that are drawn with but not under test."""
    import torch
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    AutoencoderTiny(latent_channels=16).save_pretrained(folder / "taesd")
    # Its CLIP is that of Stable Diffusion 1, under the names that its files had.
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    weights = CLIPTextModel(config).half().state_dict()
    named = {f"text_model.{name.removeprefix('text_model.')}": w for name, w in weights.items()}
    save_file(named, folder / "clip_l.safetensors")
    return {
        "taesd": folder / "taesd" / "diffusion_pytorch_model.safetensors",
        "clip_l": folder / "clip_l.safetensors",
    }
