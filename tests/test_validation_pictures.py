"""Pictures are measured, and shown side by side on the contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from validating import Validated

from fluxconv.validators.contact_sheet import contact_sheet
from fluxconv.validators.metrics import is_flat, psnr, ssim
from fluxconv.validators.report import IMAGES


def noise(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_metrics_of_equal_and_different_pictures() -> None:
    first, second = noise(0), noise(1)
    assert psnr(first, first) is None and ssim(first, first) == pytest.approx(1)
    found = psnr(first, second)
    assert found is not None and found < 12 and ssim(first, second) < 0.2
    assert 0 < ssim(first[:8, :8], second[:8, :8] // 2 + first[:8, :8] // 2) < 1
    assert not is_flat(first) and is_flat(np.full((8, 8, 3), 200, np.uint8))


@pytest.mark.parametrize("count", [1, 60])
def test_contact_sheet_takes_any_prompts_and_sizes(
    count: int, validated: Validated, tmp_path: Path
) -> None:
    _, reports, _ = validated
    report = reports[0]
    assert report.pictures
    (tmp_path / IMAGES).mkdir()
    Image.new("RGB", (1024, 512), "red").save(tmp_path / IMAGES / "a.png")
    picture = report.pictures.pictures[0].model_copy(
        update={"source": f"{IMAGES}/a.png", "variant": f"{IMAGES}/a.png", "prompt": "x" * 3000}
    )
    changed = report.model_copy(
        update={
            "settings": report.settings.model_copy(update={"width": 1024, "height": 512}),
            "pictures": report.pictures.model_copy(update={"pictures": (picture,) * count}),
        }
    )
    sheet = contact_sheet(changed, tmp_path, 4.5)
    assert sheet.width < 1000 and sheet.height < 48 * 300
