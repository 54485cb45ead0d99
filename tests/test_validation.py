"""A variant passes only if it was reopened, compared with its source and drew what that draws."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, open_variant
from fluxconv.converters.errors import BadInput, CheckFailed, UsageError
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Silent
from fluxconv.converters.stored import StoredEntry, component_entries
from fluxconv.converters.stream import as_bytes
from fluxconv.converters.variant import hash_file
from fluxconv.validators import (
    Report,
    Settings,
    load_settings,
    read_report,
    require_passed,
    validate,
    verdict,
)
from fluxconv.validators.contact_sheet import contact_sheet
from fluxconv.validators.metrics import is_flat, psnr, ssim
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.report import CONTACT_SHEET, IMAGES, REPORT_NAME
from fluxconv.validators.staging import staged_report
from fluxconv.validators.structure import check_structure
from fluxconv.validators.thresholds import DEFAULT, load_thresholds
from fluxconv.validators.weights import compare_weights

PROMPTS = ("a red circle on a blue background", "a large yellow star at the top, black background")
QUICK = Settings(height=64, width=64, steps=3, max_sequence_length=64, seeds=(1,), prompts=PROMPTS)
SAFETENSORS = "torchao-int8"
Validated = tuple[dict[str, Variant], tuple[Report, ...], list[tuple[str, str]]]


@pytest.fixture(scope="session")
def validated(
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path_factory: pytest.TempPathFactory,
) -> Validated:
    """Copies of all variants, their reports from one call, and the jobs that were run for it."""
    root = tmp_path_factory.mktemp("validated")
    variants = {name: copied(variant, root) for name, variant in tiny_variants.items()}
    jobs: list[tuple[str, str]] = []
    run = Worker.run

    def spy(worker: Worker, job: str, request: Any, progress: Any) -> Any:
        jobs.append((job, request.get("role", "")))
        return run(worker, job, request, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "run", spy)
        reports = validate(list(variants.values()), tiny_checkpoint, settings=QUICK)
    return variants, reports, jobs


@pytest.fixture
def broken(tiny_variants: dict[str, Variant], tmp_path: Path) -> Callable[[str], Variant]:
    """A copy of a variant, to be broken."""
    return lambda backend: copied(tiny_variants[backend], tmp_path)


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer fails at once, for tests of what stands around them."""

    def refuse(worker: Worker, job: str, request: Any, progress: Any) -> Any:
        raise LayerFailed("no processes in this test")

    monkeypatch.setattr(Worker, "run", refuse)


def copied(variant: Variant, folder: Path) -> Variant:
    return open_variant(shutil.copytree(variant.root, folder / variant.name))


def entry_of(variant: Variant, name: str) -> StoredEntry:
    return component_entries(variant.root, variant.component_plans()["transformer"])[name]


def overwrite(entry: StoredEntry, data: torch.Tensor) -> None:
    raw = as_bytes(data)
    assert raw.nbytes == entry.nbytes
    with entry.file.open("r+b") as stream:
        stream.seek(entry.offset)
        stream.write(raw)


def resign(variant: Variant) -> Variant:
    """Bring the manifest's hashes up to date, as a converter with a bug would."""
    file = variant.root / MANIFEST_NAME
    manifest = json.loads(file.read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hash_file(variant.root / name).model_dump()
    file.write_text(json.dumps(manifest))
    return open_variant(variant.root)


def structure_of(variant: Variant) -> tuple[str, ...]:
    return check_structure(variant.root, Silent()).problems


def failed_weights(variant: Variant, reference: Checkpoint) -> list[str]:
    """The sentences of the weights checks that fail."""
    results = compare_weights(variant.root, reference.root, Silent())
    limits = load_thresholds().for_bits(variant.backend.bits)
    return [check.text for check in verdict.weights_checks(results, limits) if not check.passed]


# What passes


def test_every_variant_passes(validated: Validated) -> None:
    _, reports, _ = validated
    for report in reports:
        assert report.verdict.passed, [c.text for c in report.verdict.checks if not c.passed]
        assert report.structure.problems == ()
        assert report.structure.files > 10 and report.structure.tensors > 100
        assert report.weights and set(report.weights) == {"transformer", "text_encoder_2"}
        assert report.execution and set(report.execution) == set(report.weights)
        assert report.reference_difference is None


def test_source_is_drawn_once_for_all_variants(validated: Validated) -> None:
    variants, _, jobs = validated
    assert jobs.count(("draw", "source")) == 1
    assert jobs.count(("draw", "variant")) == len(variants)


def test_decoded_execution_is_reported_with_its_reason(validated: Validated) -> None:
    variants, reports, _ = validated
    by_backend = dict(zip(variants, reports, strict=True))
    nf4 = by_backend["bnb-nf4"].execution
    assert nf4 and nf4["transformer"].mode == "decoded" and "GPU" in nf4["transformer"].why
    assert not by_backend[SAFETENSORS].is_decoded


def test_report_on_disk_is_the_one_returned_and_passes_the_gate(validated: Validated) -> None:
    variants, reports, _ = validated
    for variant, report in zip(variants.values(), reports, strict=True):
        assert read_report(variant) == report == require_passed(variant)
        assert report.pictures and len(report.pictures.pictures) == len(PROMPTS)
        for picture in report.pictures.pictures:
            for name in (picture.source, picture.variant):
                assert Image.open(variant.root / name).size == (64, 64)
        assert Image.open(variant.root / CONTACT_SHEET).width > 3 * 192
        hidden = [path.name for path in variant.root.iterdir() if path.name.startswith(".")]
        assert hidden == []
        variant.check_hashes(Silent())


def test_fewer_bits_give_larger_errors(validated: Validated) -> None:
    variants, reports, _ = validated
    errors = {
        variant.backend.bits: report.weights["transformer"].relative_rms
        for variant, report in zip(variants.values(), reports, strict=True)
        if report.weights
    }
    ordered = [errors[bits] for bits in sorted(errors)]
    assert ordered == sorted(ordered, reverse=True)


# Planted faults


def test_flipped_byte_is_found_and_stops_the_run(
    broken: Callable[[str], Variant], tiny_checkpoint: Checkpoint
) -> None:
    variant = broken(SAFETENSORS)
    file = variant.root / variant.manifest.components["transformer"].files[0]
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    own = shutil.copyfile(DEFAULT, variant.root.parent / "own.yaml")
    (report,) = validate([variant], tiny_checkpoint, settings=QUICK, thresholds=own)
    assert report.thresholds == "own.yaml"
    assert report.structure.problems == (
        f"{file.relative_to(variant.root)} differs from its hash in {MANIFEST_NAME}",
    )
    assert report.weights is None and report.pictures is None
    assert not (variant.root / IMAGES).exists()
    with pytest.raises(CheckFailed, match="differs from its hash"):
        require_passed(variant)


def test_all_structure_problems_are_listed(broken: Callable[[str], Variant]) -> None:
    variant = broken(SAFETENSORS)
    (variant.root / "vae" / "config.json").unlink()
    (variant.root / "transformer" / "model.safetensors").write_bytes(b"stray")
    (variant.root / "model_index.json").write_text("[")
    problems = structure_of(variant)
    assert "vae/config.json is missing" in problems
    assert f"transformer/model.safetensors is not named in {MANIFEST_NAME}" in problems
    assert any("model_index.json: is not valid JSON" in problem for problem in problems)


def test_missing_and_unplanned_tensors_are_named(broken: Callable[[str], Variant]) -> None:
    from safetensors.torch import load_file, save_file

    variant = broken(SAFETENSORS)
    file = variant.root / variant.manifest.components["transformer"].files[0]
    tensors = load_file(file)
    tensors["x_embedder.weird"] = tensors.pop("x_embedder.bias")
    tensors["proj_out.bias"] = tensors["proj_out.bias"].float()
    save_file(tensors, file, {"format": "pt"})
    problems = structure_of(resign(variant))
    assert "transformer: the tensor 'x_embedder.bias' is missing" in problems
    assert "transformer: the tensor 'x_embedder.weird' is not planned" in problems
    assert any("'proj_out.bias' is F32" in problem for problem in problems)


@pytest.mark.parametrize("backend", ["bnb-nf4", "gguf-q8_0"])
def test_truncated_file_is_found(backend: str, broken: Callable[[str], Variant]) -> None:
    variant = broken(backend)
    file = variant.root / variant.manifest.components["transformer"].files[0]
    os.truncate(file, file.stat().st_size - 4096)
    assert any("truncated" in problem for problem in structure_of(resign(variant)))


def test_config_that_its_library_refuses_is_found(broken: Callable[[str], Variant]) -> None:
    variant = broken(SAFETENSORS)
    file = variant.root / "transformer" / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"]["quant_method"] = "alchemy"
    file.write_text(json.dumps(config))
    (problem,) = structure_of(resign(variant))
    assert "diffusers refuses its quantization_config" in problem and "alchemy" in problem


def swap_q_and_k(variant: Variant) -> str:
    name = "transformer_blocks.0.attn.to_"
    for part in ("qdata", "scale"):
        q = entry_of(variant, f"{name}q._weight_{part}")
        k = entry_of(variant, f"{name}k._weight_{part}")
        of_q, of_k = q.read(), k.read()
        overwrite(q, of_k)
        overwrite(k, of_q)
    return "transformer_blocks.0.attn.to_"


def scale_a_tensor(variant: Variant) -> str:
    entry = entry_of(variant, "transformer_blocks.1.ff.net.2._weight_scale")
    overwrite(entry, entry.read() * 1.3)
    return "transformer_blocks.1.ff.net.2.weight"


def lose_one_scale(variant: Variant) -> str:
    entry = entry_of(variant, "single_transformer_blocks.0.proj_out._weight_scale")
    scales = entry.read()
    scales[17] = 0
    overwrite(entry, scales)
    return "single_transformer_blocks.0.proj_out.weight at row 17"


def change_a_kept_tensor(variant: Variant) -> str:
    entry = entry_of(variant, "proj_out.bias")
    bias = entry.read()
    bias[3] += 0.5
    overwrite(entry, bias)
    return "'proj_out.bias' is kept in BF16 and differs"


def plant_a_nan(variant: Variant) -> str:
    entry = entry_of(variant, "x_embedder._weight_scale")
    scales = entry.read()
    scales[0] = float("nan")
    overwrite(entry, scales)
    return "'x_embedder.weight' decodes to NaN"


@pytest.mark.parametrize(
    "fault", [swap_q_and_k, scale_a_tensor, lose_one_scale, change_a_kept_tensor, plant_a_nan]
)
def test_wrong_weights_are_found_and_named(
    fault: Callable[[Variant], str],
    broken: Callable[[str], Variant],
    tiny_checkpoint: Checkpoint,
) -> None:
    variant = broken(SAFETENSORS)
    named = fault(variant)
    variant = resign(variant)
    assert structure_of(variant) == ()
    assert any(named in text for text in failed_weights(variant, tiny_checkpoint))


def test_one_lost_block_scale_of_nf4_is_found(
    broken: Callable[[str], Variant], tiny_checkpoint: Checkpoint
) -> None:
    variant = broken("bnb-nf4")
    name = "single_transformer_blocks.0.proj_out.weight"
    entry = entry_of(variant, f"{name}.absmax")
    scales = entry.read()
    scales[scales.argmax()] = 0
    overwrite(entry, scales)
    assert any(name in text for text in failed_weights(resign(variant), tiny_checkpoint))


def test_swapped_rows_of_gguf_are_found(
    broken: Callable[[str], Variant], tiny_checkpoint: Checkpoint
) -> None:
    variant = broken("gguf-q8_0")
    entry = entry_of(variant, "double_blocks.0.img_attn.qkv.weight")
    rows = entry.read().reshape(entry.shape[0], -1)
    rows[[5, 6]] = rows[[6, 5]]
    overwrite(entry, rows.flatten())
    assert any(
        "transformer_blocks.0.attn.to_q.weight at row 5" in text
        or "transformer_blocks.0.attn.to_q.weight at row 6" in text
        for text in failed_weights(resign(variant), tiny_checkpoint)
    )


def test_changed_variant_voids_its_report(validated: Validated, tmp_path: Path) -> None:
    variants, _, _ = validated
    variant = resign(copied(variants["gguf-q8_0"], tmp_path))
    with pytest.raises(CheckFailed, match="changed since its report"):
        require_passed(variant)


# The reference


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
        validate([variant], other, settings=QUICK)
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
    (report,) = validate([variant], other, settings=QUICK, force=True)
    assert report.structure.problems[0].endswith("no processes in this test")
    assert report.reference_difference is not None
    assert report.reference_difference.startswith("scheduler/scheduler_config.json has ")


def test_changed_validation_settings_do_not_change_the_source(
    broken: Callable[[str], Variant],
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
    no_processes: None,
) -> None:
    variant = broken(SAFETENSORS)
    same = open_checkpoint(shutil.copytree(tiny_checkpoint.root, tmp_path / "same"))
    (same.root / "validation.yaml").write_text("prompts: [another one]\n")
    (report,) = validate([variant], same)
    assert report.reference_difference is None
    assert report.settings.prompts == ("another one",)


def test_variant_given_twice_is_refused(
    tiny_variants: dict[str, Variant], tiny_checkpoint: Checkpoint
) -> None:
    with pytest.raises(UsageError, match="given twice"):
        validate([tiny_variants[SAFETENSORS]] * 2, tiny_checkpoint, settings=QUICK)


# Processes and crashes


class Assassin(Silent):
    """Kills the worker at the first progress it makes."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def advance(self, amount: int, item: str = "") -> None:
        if self._worker.pid:
            os.kill(self._worker.pid, signal.SIGKILL)


def test_killed_worker_is_a_sentence_and_the_next_job_gets_a_new_one(
    tiny_variants: dict[str, Variant],
) -> None:
    request = {"variant": str(tiny_variants[SAFETENSORS].root)}
    with Worker() as worker:
        with pytest.raises(LayerFailed, match="ended by SIGKILL"):
            worker.run("structure", request, Assassin(worker))
        assert worker.run("structure", request, Silent())["problems"] == []


def test_crash_in_a_worker_is_a_sentence() -> None:
    with Worker() as worker, pytest.raises(LayerFailed, match="failed unexpectedly: TypeError"):
        worker.run("structure", {"nonsense": 1}, Silent())


def test_failed_run_leaves_the_old_report(tmp_path: Path) -> None:
    (tmp_path / REPORT_NAME).write_text("old")
    with pytest.raises(KeyboardInterrupt), staged_report(tmp_path) as folder:
        (folder / REPORT_NAME).write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [REPORT_NAME]
    assert (tmp_path / REPORT_NAME).read_text() == "old"


@pytest.mark.parametrize("survived", range(4))
def test_kill_at_any_step_leaves_no_mixture(
    survived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(folder: Path, what: str) -> None:
        (folder / IMAGES).mkdir(exist_ok=True)
        (folder / IMAGES / "a.png").write_text(what)
        (folder / REPORT_NAME).write_text(what)

    report(tmp_path, "old")
    left = [survived]

    def dying(name: str) -> None:
        true = getattr(Path, name)

        def step(path: Path, *args: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise SystemExit("killed")
            left[0] -= 1
            return true(path, *args, **options)

        monkeypatch.setattr(Path, name, step)

    with pytest.raises(SystemExit), staged_report(tmp_path) as folder:
        report(folder, "new")
        dying("rename")
        dying("unlink")
    found = tmp_path / REPORT_NAME
    if found.exists():
        assert found.read_text() == (tmp_path / IMAGES / "a.png").read_text()
    monkeypatch.undo()
    with staged_report(tmp_path) as folder:
        report(folder, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [IMAGES, REPORT_NAME]
    assert (tmp_path / IMAGES / "a.png").read_text() == found.read_text() == "new"


def test_two_runs_on_one_variant_are_refused(tmp_path: Path) -> None:
    with staged_report(tmp_path) as folder:
        with pytest.raises(BadInput, match="another run is validating it"), staged_report(tmp_path):
            pass
        (folder / REPORT_NAME).write_text("first")
    assert (tmp_path / REPORT_NAME).read_text() == "first"


# Settings and thresholds


def test_default_prompts_are_used_without_the_checkpoints_own(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    bare = open_checkpoint(shutil.copytree(tiny_checkpoint.root / "transformer", tmp_path / "t"))
    settings = load_settings(bare.root, {"steps": 3, "guidance": None})
    assert len(settings.prompts) >= 12 and len(set(settings.prompts)) == len(settings.prompts)
    assert (settings.steps, settings.guidance) == (3, 3.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no prompt"),
        (b"\n  \n", "holds no prompt"),
        (b"caf\xe9", "is not UTF-8 text"),
        (None, "no such file"),
    ],
)
def test_bad_prompts_file_is_one_sentence(
    content: bytes | None, message: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        load_settings(tiny_checkpoint.root, prompts=file)
    assert "\n" not in str(caught.value)


def test_prompts_file_has_one_prompt_a_line(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffein Käfer\r\n\r\n<b>two</b>\n".encode())
    assert load_settings(tiny_checkpoint.root, prompts=file).prompts == ("ein Käfer", "<b>two</b>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 4\n", "unknown key 'stepz'; did you mean steps"),
        ("height: 65\n", "height: input should be a multiple of 8"),
        ("steps: [\n", "not valid YAML"),
        ("- a\n", "must hold keys and values"),
    ],
)
def test_bad_validation_yaml_is_named(
    text: str, message: str, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    own = open_checkpoint(shutil.copytree(tiny_checkpoint.root / "transformer", tmp_path / "t"))
    (own.root / "validation.yaml").write_text(text)
    with pytest.raises(BadInput, match=message):
        load_settings(own.root)


def test_every_threshold_has_a_class_and_limits_loosen_with_fewer_bits() -> None:
    thresholds = load_thresholds()
    rows = [thresholds.for_bits(bits) for bits in (16, 8, 6, 4, 3, 2)]
    for name in type(rows[0]).model_fields:
        limits = [getattr(row, name).limit for row in rows]
        assert limits == sorted(limits, reverse=not name.startswith("weights"))


def test_own_thresholds_are_held_and_a_misspelt_one_is_named(
    validated: Validated, tmp_path: Path
) -> None:
    _, reports, _ = validated
    text = DEFAULT.read_text()
    strict = tmp_path / "strict.yaml"
    strict.write_text(re.sub(r"weights_rms: {limit: [0-9.]+", "weights_rms: {limit: 1e-6", text))
    limits = load_thresholds(strict).for_bits(4.5)
    failed = [
        c.text for c in verdict.weights_checks(reports[0].weights or {}, limits) if not c.passed
    ]
    assert len(failed) == 2 and "is more than 1e-06" in failed[0]
    strict.write_text(text.replace("weights_rms:", "weight_rms:"))
    with pytest.raises(BadInput, match="did you mean weights_rms"):
        load_thresholds(strict)


# Pictures


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
