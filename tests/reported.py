"""Variants with a report that was made up, for tests of what happens after validation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from fluxconv.converters import Variant, open_variant
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.variant import hash_file
from fluxconv.validators.report import CONTACT_SHEET, Report, Settings, image_hashes
from fluxconv.validators.results import (
    Check,
    ComponentExecution,
    KindError,
    Machine,
    NoiseFloor,
    Performance,
    Picture,
    PicturesResult,
    PromptText,
    StepError,
    StepsResult,
    StretchError,
    StructureResult,
    Summary,
    TensorError,
    TextResult,
    Trajectory,
    Verdict,
    WeightsResult,
)

PROMPT = "a red triangle on a blue background at the left"
#: What the only picture scored.
SCORES: dict[str, float | None] = {
    "psnr": 31.25,
    "ssim": 0.95678,
    "ms_ssim": 0.97654,
    "flip": 0.0876,
}


def copied(variant: Variant, folder: Path, **changes: Any) -> Variant:
    """A copy of the variant in `folder`, its manifest changed.

    `metadata` and `source_id` replace what the manifest says of the source, any other keyword a
    field of the manifest. Without `metadata`, the licence is Apache-2.0.
    """
    root = folder / str(changes.get("name", variant.name))
    shutil.copytree(variant.root, root)
    manifest = json.loads((root / MANIFEST_NAME).read_text("utf-8"))
    manifest["source"]["metadata"] = changes.pop("metadata", {"license": "apache-2.0"})
    manifest["source"]["id"] = changes.pop("source_id", manifest["source"]["id"])
    manifest |= changes
    (root / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2), "utf-8")
    return open_variant(root)


def reported(variant: Variant, *, passed: bool = True, **changes: Any) -> Variant:
    """The variant, with a report and pictures written beside it; `changes` replace its fields."""
    names = ("images/00-0-source.png", "images/00-0-variant.png", "images/00-0-flip.png")
    for index, name in enumerate((*names, CONTACT_SHEET)):
        (variant.root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (40 * index, 90, 160)).save(variant.root / name)
    report = made_up(variant, passed=passed)
    report = report.model_copy(update={"images": image_hashes(variant.root), **changes})
    (variant.root / "report.json").write_text(report.model_dump_json(indent=2), "utf-8")
    return variant


def made_up(variant: Variant, *, passed: bool = True) -> Report:
    """A report in which every layer was reached and every field is filled."""
    native = {name: ComponentExecution(mode="native") for name in variant.manifest.components}
    weights = sum(component.weight_bytes for component in variant.manifest.components.values())
    check = Check(name="PSNR", value=31.25, limit=20.0, passed=passed, text="PSNR is 31.2 dB")
    return Report(
        variant=variant.name,
        backend=variant.manifest.backend,
        size=sum(record.size for record in variant.manifest.files.values()),
        bits_per_weight=variant.manifest.bits_per_weight,
        manifest_sha256=hash_file(variant.root / MANIFEST_NAME).sha256,
        reference=variant.manifest.source.id,
        reference_revision=None,
        settings=Settings(
            height=64, width=64, steps=2, guidance=3.5, max_sequence_length=32, prompts=(PROMPT,)
        ),
        preset="quick",
        device="cpu",
        machine=Machine(
            system="Linux", processor="A Processor", cores=2, memory=16_000_000_000, gpu=None
        ),
        versions=variant.manifest.versions,
        structure=StructureResult(files=12, tensors=345, problems=()),
        weights={name: _weights() for name in variant.manifest.components},
        text_encoder=TextResult(
            prompts=(
                PromptText(
                    prompt=PROMPT, relative_rms=0.0456, errors=(0.04, 0.05), cosines=(0.999, 0.998)
                ),
            ),
            relative_rms=0.0456,
            cosine_mean=0.9985,
            cosine_min=0.998,
        ),
        steps=_steps(),
        execution=native,
        pictures=PicturesResult(
            pictures=(
                Picture(
                    prompt=PROMPT,
                    seed=0,
                    source="images/00-0-source.png",
                    variant="images/00-0-variant.png",
                    flip_map="images/00-0-flip.png",
                    scores=SCORES,
                ),
            ),
            summary=_summary(SCORES),
            seconds=1.5,
            source_seconds=1.25,
        ),
        noise_floor=NoiseFloor(
            pictures=1,
            again=_summary({"psnr": None, "ssim": 1.0, "ms_ssim": 1.0, "flip": 0.0}),
            dtype="float32",
            other=_summary({"psnr": 45.5, "ssim": 0.9912, "ms_ssim": 0.9934, "flip": 0.0123}),
            steps_rms=0.00321,
        ),
        performance=_performance(weights, 3.25, native),
        source_performance=_performance(2 * weights, 2.75, native),
        verdict=Verdict(passed=passed, checks=(check,)),
    )


def _summary(scores: dict[str, float | None]) -> dict[str, Summary]:
    return {name: Summary(mean=value, worst=value) for name, value in scores.items()}


def _weights() -> WeightsResult:
    tensor = TensorError(
        name="transformer_blocks.0.attn.to_q.weight",
        type="Q8_0",
        weights=65536,
        relative_rms=0.01234,
        snr=38.17,
        largest=0.0021,
        cosine=0.99992,
        gain=0.9999,
    )
    kind = KindError(
        name="transformer_blocks.*.attn.to_q.weight",
        tensors=1,
        weights=65536,
        relative_rms=0.01234,
    )
    stretch = StretchError(name=tensor.name, row=3, column=256, relative_rms=0.02)
    return WeightsResult(
        relative_rms=0.01234, tensors=(tensor,), kinds=(kind,), kept=9, worst_stretch=stretch
    )


def _steps() -> StepsResult:
    steps = tuple(
        StepError(timestep=timestep, relative_rms=error, cosine=1 - error**2)
        for timestep, error in ((1000.0, 0.02), (500.0, 0.03))
    )
    return StepsResult(
        trajectories=(Trajectory(prompt=PROMPT, seed=0, steps=steps),),
        relative_rms=0.0257,
        relative_rms_max=0.03,
        cosine_mean=0.99935,
        cosine_min=0.9991,
    )


def _performance(
    weights: int, seconds: float, execution: dict[str, ComponentExecution]
) -> tuple[Performance, ...]:
    return (
        Performance(
            mode="plain",
            device="cpu",
            execution=execution,
            pictures=3,
            load_seconds=1.75,
            memory_loaded=weights + 300_000_000,
            memory_peak=weights + 450_000_000,
            seconds=seconds,
        ),
        Performance(
            mode="offload-model",
            device="cpu",
            execution=execution,
            why="offloading needs a GPU",
        ),
    )
