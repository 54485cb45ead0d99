"""A variant is compared with the very checkpoint it was made from, or its report says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from validating import QUICK, SAFETENSORS, Validated, copy_of, quick

from fluxconv.converters import Checkpoint, Variant, dequantize, open_checkpoint
from fluxconv.converters.errors import BadInput, CheckFailed, UsageError
from fluxconv.validators import require_passed, validate
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.report import REPORT_NAME


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer fails at once, for tests of what stands around them."""

    def refuse(worker: Worker, job: str, request: Any, progress: Any) -> Any:
        raise LayerFailed("no processes in this test")

    monkeypatch.setattr(Worker, "run", refuse)


def test_wrong_reference_is_refused_and_the_old_report_stays(
    validated: Validated, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    variants, _, _ = validated
    variant = variants[SAFETENSORS]
    before = (variant.root / REPORT_NAME).read_bytes()
    other = open_checkpoint(shutil.copytree(tiny_checkpoint.root, tmp_path / "other"))
    file = other.root / "transformer" / "diffusion_pytorch_model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        stream.write(b"\0\0")
    with pytest.raises(BadInput, match=r"not the checkpoint that .* was made from: transformer/"):
        validate([variant], other, settings=QUICK, options=quick(tmp_path))
    assert (variant.root / REPORT_NAME).read_bytes() == before


def test_forced_reference_is_in_the_report(
    broken: Callable[[str], Variant],
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
    no_processes: None,
) -> None:
    variant = broken(SAFETENSORS)
    other = open_checkpoint(shutil.copytree(tiny_checkpoint.root, tmp_path / "other"))
    file = other.root / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text() + " ")
    (report,) = validate([variant], other, settings=QUICK, options=quick(tmp_path, force=True))
    assert report.structure.problems[0].endswith("no processes in this test")
    assert report.reference_difference is not None
    assert report.reference_difference.startswith("scheduler/scheduler_config.json has ")


def test_forced_report_is_no_proof(validated_variants: dict[str, Variant], tmp_path: Path) -> None:
    """Compared with its own decoding, anything passes; so that must not open the publish gate."""
    variant = copy_of(validated_variants[SAFETENSORS], tmp_path)
    require_passed(variant)
    dequantized = open_checkpoint(dequantize(variant, tmp_path / "plain"))
    (report,) = validate(
        [variant], dequantized, settings=QUICK, options=quick(tmp_path, force=True)
    )
    assert report.verdict.passed
    with pytest.raises(CheckFailed, match="something else than its source"):
        require_passed(variant)


def test_changed_validation_settings_do_not_change_the_source(
    broken: Callable[[str], Variant],
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
    no_processes: None,
) -> None:
    variant = broken(SAFETENSORS)
    same = open_checkpoint(shutil.copytree(tiny_checkpoint.root, tmp_path / "same"))
    (same.root / "validation.yaml").write_text("prompts: [another one]\n")
    (report,) = validate([variant], same, options=quick(tmp_path))
    assert report.reference_difference is None
    assert report.settings.prompts == ("another one",)


def test_variant_given_twice_is_refused(
    tiny_variants: dict[str, Variant], tiny_checkpoint: Checkpoint
) -> None:
    with pytest.raises(UsageError, match="given twice"):
        validate([tiny_variants[SAFETENSORS]] * 2, tiny_checkpoint, settings=QUICK)
