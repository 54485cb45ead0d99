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
from fluxconv.validators.report import (
    CONTACT_SHEET,
    Check,
    ComponentExecution,
    Picture,
    PicturesResult,
    Report,
    Settings,
    StructureResult,
    Verdict,
    WeightsResult,
)

PROMPT = "a red triangle on a blue background at the left"


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
    names = ("images/00-0-source.png", "images/00-0-variant.png")
    for index, name in enumerate((*names, CONTACT_SHEET)):
        (variant.root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (40 * index, 90, 160)).save(variant.root / name)
    picture = Picture(
        prompt=PROMPT, seed=0, source=names[0], variant=names[1], psnr=31.25, ssim=0.95678
    )
    check = Check(name="PSNR", value=31.25, limit=20.0, passed=passed, text="PSNR is 31.2 dB")
    report = Report(
        variant=variant.name,
        backend=variant.manifest.backend,
        manifest_sha256=hash_file(variant.root / MANIFEST_NAME).sha256,
        reference=variant.manifest.source.id,
        reference_revision=None,
        settings=Settings(
            height=64, width=64, steps=2, guidance=3.5, max_sequence_length=32, prompts=(PROMPT,)
        ),
        device="cpu",
        versions=variant.manifest.versions,
        structure=StructureResult(files=12, tensors=345, problems=()),
        weights={
            name: WeightsResult(relative_rms=0.01234, worst=())
            for name in variant.manifest.components
        },
        execution={name: ComponentExecution(mode="native") for name in variant.manifest.components},
        pictures=PicturesResult(
            pictures=(picture,),
            psnr_mean=31.25,
            psnr_min=31.25,
            ssim_mean=0.95678,
            ssim_min=0.95678,
            seconds=1.0,
        ),
        verdict=Verdict(passed=passed, checks=(check,)),
    ).model_copy(update=changes)
    (variant.root / "report.json").write_text(report.model_dump_json(indent=2), "utf-8")
    return variant
