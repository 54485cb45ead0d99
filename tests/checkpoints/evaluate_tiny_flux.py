"""Let a tiny Flux draw held-out captions, judge the pictures, and show them on one sheet.

The pictures it gets wrong are listed.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch
from diffusers import FluxPipeline
from PIL import Image, ImageDraw
from shapes import SIZE, Scene, held_out_sample, judge


def draw(
    pipeline: FluxPipeline,
    captions: list[str],
    *,
    steps: int,
    guidance: float,
    length: int,
    seed: int,
) -> list[Image.Image]:
    """One picture a caption, each from its own seeded noise, in batches."""
    pictures: list[Image.Image] = []
    for start in range(0, len(captions), 20):
        chunk = captions[start : start + 20]
        pictures += pipeline(
            chunk,
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=length,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(chunk))],
        ).images
    return pictures


def contact_sheet(
    pictures: list[Image.Image], labels: list[str], columns: int = 10, zoom: int = 2
) -> Image.Image:
    """The pictures in rows, with a few words under each."""
    cell, line = SIZE * zoom + 4, 26
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * (cell + line)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = index % columns * cell, index // columns * (cell + line)
        sheet.paste(picture.resize((SIZE * zoom,) * 2, Image.Resampling.NEAREST), (x, y))
        pen.multiline_text((x, y + SIZE * zoom), label, fill="black", font_size=10, spacing=1)
    return sheet


def label(scene: Scene, right: bool) -> str:
    """Two short lines for the sheet; a star marks a wrong picture."""
    first = f"{'' if right else '* '}{scene.size} {scene.colour} {scene.shape}".strip()
    return f"{first}\n{scene.background}, {scene.position}"


@click.command(help=__doc__)
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--captions", default=100, show_default=True, help="How many held-out captions.")
@click.option("--steps", default=8, show_default=True)
@click.option("--guidance", default=3.5, show_default=True)
@click.option("--length", default=24, show_default=True, help="max_sequence_length of the prompt.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16", show_default=True
)
@click.option("--threads", default=2, show_default=True)
@click.option("--sheet", type=click.Path(path_type=Path), help="Write the contact sheet here.")
def main(
    checkpoint: Path,
    captions: int,
    steps: int,
    guidance: float,
    length: int,
    seed: int,
    dtype: str,
    threads: int,
    sheet: Path | None,
) -> None:
    torch.set_num_threads(threads)
    pipeline = FluxPipeline.from_pretrained(
        checkpoint, dtype=getattr(torch, dtype), local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    wanted = held_out_sample(captions, seed=1)
    started = time.monotonic()
    pictures = draw(
        pipeline,
        [text for _, text in wanted],
        steps=steps,
        guidance=guidance,
        length=length,
        seed=seed,
    )
    verdicts = [judge(picture, scene) for picture, (scene, _) in zip(pictures, wanted, strict=True)]
    colours = sum(verdict.colours_right for verdict in verdicts)
    shapes = sum(verdict.shape_right for verdict in verdicts)
    click.echo(
        f"{captions} held-out captions, {steps} steps, length {length}, {dtype}: "
        f"colours right {colours}, shape right {shapes}, {time.monotonic() - started:.1f} s"
    )
    for verdict, (_, text) in zip(verdicts, wanted, strict=True):
        if not (verdict.colours_right and verdict.shape_right):
            click.echo(f"  {text!r}: {verdict.colour} {verdict.shape} on {verdict.background}")
    if sheet:
        labels = [label(v.scene, v.colours_right and v.shape_right) for v in verdicts]
        contact_sheet(pictures, labels).save(sheet)
        click.echo(f"contact sheet: {sheet}")


if __name__ == "__main__":
    main()
