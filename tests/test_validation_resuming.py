"""Nothing is measured twice: after a kill, with other thresholds, or for the next variant."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from validating import QUICK, SAFETENSORS, Validated, copy_of, quick

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.errors import CheckFailed
from fluxconv.validators import Report, read_report, require_passed, validate
from fluxconv.validators.kept import FOLDER
from fluxconv.validators.process import Worker
from fluxconv.validators.report import IMAGES, REPORT_NAME
from fluxconv.validators.thresholds import DEFAULT

Run = Callable[..., tuple[Report, list[str]]]


@pytest.fixture
def run(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Iterator[Run]:
    """Validates a variant, and says which jobs that took."""
    jobs: list[str] = []
    true = Worker.run

    def spy(worker: Worker, job: str, request: Any, progress: Any) -> Any:
        jobs.append(job)
        return true(worker, job, request, progress)

    def validated(variant: Variant, **options: Any) -> tuple[Report, list[str]]:
        jobs.clear()
        chosen = quick(tmp_path, **options)
        (report,) = validate([variant], tiny_checkpoint, settings=QUICK, options=chosen)
        return report, list(jobs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "run", spy)
        yield validated


def test_second_validation_measures_nothing_and_says_the_same(
    run: Run, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = copy_of(tiny_variants[SAFETENSORS], tmp_path / "a")
    first, jobs = run(variant)
    layers = ["structure", "weights", "source", "execution", "text_encoder", "steps", "draw"]
    assert first.verdict.passed and jobs == layers
    second, jobs = run(variant)
    assert second == first and jobs == ["structure"]
    assert all((variant.root / p.variant).is_file() for p in second.pictures.pictures)  # type: ignore[union-attr]
    _, jobs = run(copy_of(tiny_variants["gguf-q8_0"], tmp_path / "b"))
    assert "source" not in jobs and "draw" in jobs
    _, jobs = run(variant, fresh=True)
    assert jobs == [layer for layer in layers if layer != "source"]


def test_other_thresholds_judge_again_without_measuring(
    run: Run, validated: Validated, tmp_path: Path
) -> None:
    variant = copy_of(validated[0][SAFETENSORS], tmp_path / "a")
    before, _ = run(variant)
    strict = tmp_path / "strict.yaml"
    text = re.sub(r"steps_rms: {limit: [0-9.]+", "steps_rms: {limit: 1e-6", DEFAULT.read_text())
    strict.write_text(text)
    after, jobs = run(variant, thresholds=strict, keep_going=True)
    assert jobs == ["structure"]
    assert not after.verdict.passed and before.verdict.passed
    failed = [check.text for check in after.verdict.checks if not check.passed]
    assert len(failed) == 1 and "relative error of the velocity" in failed[0]
    assert after.pictures == before.pictures
    with pytest.raises(CheckFailed, match="relative error of the velocity"):
        require_passed(variant)


def test_lost_picture_is_drawn_again(run: Run, validated: Validated, tmp_path: Path) -> None:
    variant = copy_of(validated[0][SAFETENSORS], tmp_path / "a")
    before, _ = run(variant)
    next((variant.root / IMAGES).glob("*-variant.png")).unlink()
    after, jobs = run(variant)
    assert jobs == ["structure", "draw"]
    assert after.pictures and before.pictures
    assert after.pictures.summary == before.pictures.summary


def test_changed_variant_is_measured_anew(run: Run, validated: Validated, tmp_path: Path) -> None:
    variant = copy_of(validated[0][SAFETENSORS], tmp_path / "a")
    run(variant)
    manifest = variant.root / "fluxconv.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(CheckFailed, match="changed since its report was made"):
        require_passed(variant)
    _, jobs = run(variant)
    assert jobs[:2] == ["structure", "weights"] and "draw" in jobs
    require_passed(variant)


@pytest.mark.parametrize(
    "reached",
    [
        pytest.param("weights.json", marks=pytest.mark.slow),
        pytest.param("steps.json", marks=pytest.mark.slow),
        "drawn/*/*.json",
        pytest.param("pictures.json", marks=pytest.mark.slow),
    ],
    ids=["weights", "steps", "first-picture", "pictures"],
)
def test_killed_validation_goes_on_where_it_was(
    reached: str, run: Run, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """The command, ended by SIGKILL as soon as a layer, or a picture, is there."""
    variant = copy_of(tiny_variants[SAFETENSORS], tmp_path / "a")
    cache = tmp_path / "references"
    script = (
        "import sys; from pathlib import Path; from validating import QUICK\n"
        "from fluxconv.converters import open_checkpoint, open_variant\n"
        "from fluxconv.validators import Options, validate\n"
        "options = Options(modes=(), cache=Path(sys.argv[3]))\n"
        "validate([open_variant(sys.argv[1])], open_checkpoint(sys.argv[2]),\n"
        "         settings=QUICK, options=options)\n"
    )
    tiny = Path(__file__).parent / "checkpoints" / "tiny-flux"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(variant.root), str(tiny), str(cache)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        start_new_session=True,
    )
    folder = variant.root / FOLDER
    while process.poll() is None and not list(folder.glob(reached)):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (variant.root / REPORT_NAME).exists()
    done = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    report, jobs = run(variant)
    assert report.verdict.passed and read_report(variant) == report
    assert ("source" in jobs) == (reached == "weights.json") and "structure" in jobs
    kept = [path.stem for path in done if path.parent == folder]
    again = {"pictures": "draw"}
    assert not {again.get(name, name) for name in kept} & set(jobs) - {"draw"}
    for path, written in done.items():
        # Pictures that were drawn are taken, and then are in the report.
        assert not path.exists() or path.stat().st_mtime_ns == written or path.stem == "pictures"
