"""Train the tiny Flux: first its VAE on pictures, then T5 and transformer together on latents.

    python tests/checkpoints/train_tiny_flux.py --output tests/checkpoints/tiny-flux

Everything is seeded. Arithmetic is bf16 with fp32 weights, and the model that is saved is the
average over the last steps, rounded to bf16.
"""

from __future__ import annotations

import copy
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from shapes import JITTER, TEMPLATES, Scene, render, scenes
from tiny_flux import (
    LATENT_CHANNELS,
    SEQUENCE_LENGTH,
    make_clip,
    make_t5,
    make_transformer,
    make_vae,
    save_pipeline,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer
from vocabularies import CLIP_LENGTH, corpus, make_clip_tokenizer, make_t5_tokenizer

PICTURES = 12_288
BATCH = 32
LONG_LENGTHS = {128: 32, 512: 10}
"""Longer paddings that are mixed in late, and the batch that costs about a normal step or two."""
_STARTED = time.monotonic()


def say(message: str) -> None:
    """One progress line: minutes since the start, minutes of processor time, message."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = (used.ru_utime + used.ru_stime) / 60
    click.echo(f"[{(time.monotonic() - _STARTED) / 60:5.1f} min, cpu {cpu:5.1f}] {message}")


def make_pictures(count: int, seed: int) -> tuple[list[int], Tensor]:
    """Indices into the training scenes, each as often as any other, and their pictures."""
    known = list(scenes(held_out=False))
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < count:
        order += rng.sample(range(len(known)), len(known))
    chosen = order[:count]

    def moved() -> float:
        return rng.uniform(-JITTER, JITTER)

    drawn = [render(known[index], moved(), moved()) for index in chosen]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) * 2 - 1
    return chosen, pixels.contiguous()


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of indices, every index once an epoch."""
    while True:
        order = torch.randperm(count, generator=generator)
        yield from (order[i : i + size] for i in range(0, count - size + 1, size))


def crop_shapes(pixels: Tensor, size: int) -> Tensor:
    """A square around each picture's shape, not quite centred."""
    inked = (pixels - pixels[..., :1, :1]).abs().amax(dim=1) > 0.1
    places = torch.arange(pixels.shape[-1])
    corners = []
    for line in (inked.any(dim=2), inked.any(dim=1)):
        middle = (line * places).sum(dim=1) // line.sum(dim=1)
        shift = torch.randint(-6, 7, middle.shape)
        corners.append((middle - size // 2 + shift).clamp(0, pixels.shape[-1] - size).tolist())
    crops = zip(pixels, *corners, strict=True)
    return torch.stack([picture[:, y : y + size, x : x + size] for picture, y, x in crops])


def train_vae(pixels: Tensor, steps: int) -> AutoencoderKL:
    """Learn to compress pictures."""
    vae = make_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    schedule = OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    picks = batches(len(pixels), 16, torch.Generator().manual_seed(1))
    recent = 0.0
    for step in range(steps):
        images = pixels[next(picks)]
        # Flat background is learned at once and costs most of the time: first the surroundings of
        # the shape, and whole pictures only for the last quarter.
        images = crop_shapes(images, 32) if step < 0.75 * steps else images[:10]
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            restored = vae.decode(posterior.sample()).sample.float()
        error = ((restored - images).abs() + (restored - images) ** 2).mean()
        # A faint pull towards a unit normal keeps the latents smooth, which the flow needs.
        loss = error + 1e-3 * posterior.kl().float().mean() / images[0].numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent = error.item() if step == 0 else 0.98 * recent + 0.02 * error.item()
        if step % 100 == 99:
            say(f"vae  step {step + 1}/{steps}  error {recent:.4f}")
    return vae.eval().requires_grad_(False)


def encode_pictures(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """All latents, normalized to mean 0 and deviation 1, packed the way Flux packs them."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        parts = [vae.encode(chunk).latent_dist.mean.float() for chunk in pixels.split(64)]
    latents = torch.cat(parts)
    shift, scale = latents.mean().item(), 1 / latents.std().item()
    vae.register_to_config(shift_factor=round(shift, 4), scaling_factor=round(scale, 4))
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    count, _, height, width = latents.shape
    return FluxPipeline._pack_latents(latents, count, LATENT_CHANNELS, height, width)


def encode_captions(
    known: list[Scene],
    t5_tokenizer: T5Tokenizer,
    clip_tokenizer: CLIPTokenizer,
    clip: CLIPTextModel,
) -> tuple[Tensor, Tensor]:
    """T5 token ids and CLIP's pooled vectors of every caption of every training scene."""
    captions = [scene.caption(i) for scene in known for i in range(len(TEMPLATES))]
    padded = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    ids = t5_tokenizer(captions, max_length=SEQUENCE_LENGTH, **padded).input_ids
    pooled = []
    with torch.inference_mode():
        for start in range(0, len(captions), 512):
            tokens = clip_tokenizer(captions[start : start + 512], max_length=CLIP_LENGTH, **padded)
            pooled.append(clip(tokens.input_ids).pooler_output)
    shape = (len(known), len(TEMPLATES), -1)
    return ids.reshape(shape), torch.cat(pooled).reshape(shape).clone()


class Flow(nn.Module):
    """T5 and transformer as one model that is trained as one."""

    def __init__(self, t5: T5EncoderModel, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.t5 = t5
        self.transformer = transformer
        places = FluxPipeline._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)
        self.register_buffer("image_ids", places)

    def forward(
        self, noisy: Tensor, sigma: Tensor, guidance: Tensor, pooled: Tensor, ids: Tensor
    ) -> Tensor:
        """The predicted velocity, from data towards noise."""
        prompt = self.t5(ids)[0]
        return self.transformer(
            hidden_states=noisy,
            timestep=sigma,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=prompt,
            txt_ids=torch.zeros(ids.shape[1], 3),
            img_ids=self.image_ids,
            return_dict=False,
        )[0]


def sample_sigmas(count: int) -> Tensor:
    """Noise levels, mostly high.

    So little is in these pictures that a tenth of one shows through nine tenths of noise, and
    below that the caption is not needed: it is learned near 1 or not at all.
    """
    uniform = torch.rand(count)
    shifted = 4 * uniform / (1 + 3 * uniform)
    return torch.where(torch.rand(count) < 0.2, 1 - 0.1 * uniform, shifted)


def moving_average(average: list[Tensor], current: list[Tensor], count: Tensor) -> None:
    """Average over about the last 500 steps, or a tenth of all steps while there are fewer."""
    torch._foreach_lerp_(average, current, max(0.002, 10 / (10 + count.item())))


def parameter_groups(flow: Flow) -> list[dict[str, Any]]:
    """One rate for the transformer; in T5, for each tensor a hundredth of its own magnitude.

    T5's attention is not scaled and its queries start 100 times smaller than its embedding. With
    one rate for all, the queries are blown up in the first steps and T5 never learns to read.
    """
    groups: list[dict[str, Any]] = [{"params": list(flow.transformer.parameters()), "lr": 1e-3}]
    for weight in flow.t5.parameters():
        magnitude = weight.detach().square().mean().sqrt().item()
        groups.append({"params": [weight], "lr": 0.01 * min(max(magnitude, 0.01), 1.0)})
    return groups


def train_flow(
    flow: Flow,
    latents: Tensor,
    chosen: Tensor,
    ids: Tensor,
    pooled: Tensor,
    steps: int,
    snapshot: Callable[[Flow], None],
) -> Flow:
    """Flow matching on cached latents; returns the averaged model, and shows it every quarter."""
    average = AveragedModel(flow, multi_avg_fn=torch.no_grad()(moving_average))
    optimizer = torch.optim.AdamW(
        parameter_groups(flow), betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=0.08, cycle_momentum=False)
    picks = batches(len(latents), BATCH, torch.Generator().manual_seed(2))
    compiled = torch.compile(flow, dynamic=False)
    recent = 0.0
    for step in range(steps):
        pick, length, model = next(picks), SEQUENCE_LENGTH, compiled
        if step > 0.6 * steps and step % 8 == 7:
            # Compiling for each length would take longer than these few steps gain.
            length, model = (512 if step % 16 == 15 else 128), flow
            pick = pick[: LONG_LENGTHS[length]]
        clean, scene = latents[pick], chosen[pick]
        wording = torch.randint(len(TEMPLATES), (len(pick),))
        tokens = functional.pad(ids[scene, wording], (0, length - SEQUENCE_LENGTH))
        sigma = sample_sigmas(len(pick))
        noise = torch.randn_like(clean)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        guidance = 1 + 4 * torch.rand(len(pick))
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(noisy, sigma, guidance, pooled[scene, wording], tokens)
        loss = functional.mse_loss(velocity.float(), noise - clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(flow)
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if step % 50 == 49 or step == 0:
            say(f"flow step {step + 1}/{steps}  loss {recent:.4f}")
        if (step + 1) % (steps // 4) == 0 and step + 1 < steps:
            snapshot(copy.deepcopy(average.module))
    return average.module


@click.command(help=__doc__)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "tiny-flux",
    show_default=True,
    help="Replaced when training is done, and by what there is after each quarter.",
)
@click.option("--steps", default=3000, show_default=True, help="Steps of T5 and transformer.")
@click.option("--vae-steps", default=1600, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(output: Path, steps: int, vae_steps: int, seed: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    picked, pixels = make_pictures(PICTURES, seed)
    hidden = len(list(scenes(held_out=True)))
    say(f"{len(pixels)} pictures of {len(set(picked))} scenes, {hidden} more held out")
    vae = train_vae(pixels, vae_steps)
    latents = encode_pictures(vae, pixels)
    say(f"latents: shift {vae.config.shift_factor}, scale {vae.config.scaling_factor}")
    with tempfile.TemporaryDirectory() as scratch:
        lines = corpus(seed)
        clip_tokenizer = make_clip_tokenizer(Path(scratch, "tokenizer"), lines)
        t5_tokenizer = make_t5_tokenizer(Path(scratch, "tokenizer_2"), lines)
        clip = make_clip(clip_tokenizer)
        known = list(scenes(held_out=False))
        ids, pooled = encode_captions(known, t5_tokenizer, clip_tokenizer, clip)
        say(f"{ids.shape[0] * ids.shape[1]} captions")

        def save(trained: Flow) -> None:
            save_pipeline(
                output,
                transformer=trained.transformer,
                text_encoder=clip,
                text_encoder_2=trained.t5,
                vae=vae,
                tokenizer=clip_tokenizer,
                tokenizer_2=t5_tokenizer,
            )
            size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
            say(f"saved {output}, {size / 1e6:.1f} MB")

        flow = Flow(make_t5(t5_tokenizer), make_transformer())
        save(train_flow(flow, latents, torch.tensor(picked), ids, pooled, steps, save))


if __name__ == "__main__":
    main()
