"""What a validation draws and what it allows: prompts, settings and thresholds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from validating import Validated

from fluxconv.converters import Checkpoint, open_checkpoint
from fluxconv.converters.errors import BadInput, UsageError
from fluxconv.validators import load_settings, verdict
from fluxconv.validators.settings import preset_names
from fluxconv.validators.thresholds import DEFAULT, NAMES, load_thresholds


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
        ("ein Käfer".encode("utf-16"), "is not UTF-8 text"),
        (b"a\0b", "holds control characters"),
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


def test_long_prompts_file_is_refused_or_cut_as_asked(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"picture {i}\n" for i in range(10_000)))
    with pytest.raises(BadInput, match="holds 10000 prompts, of which at most 1000") as caught:
        load_settings(tiny_checkpoint.root, prompts=file)
    assert "--limit" in str(caught.value)
    found = load_settings(tiny_checkpoint.root, prompts=file, limit=3, preset="quick")
    assert found.prompts == ("picture 0", "picture 1", "picture 2")


def test_presets_say_how_much_and_the_checkpoint_how(tiny_checkpoint: Checkpoint) -> None:
    quick, standard, full = (
        load_settings(tiny_checkpoint.root, preset=name) for name in preset_names()
    )
    assert len(quick.prompts) < len(standard.prompts) <= len(full.prompts)
    assert {each.height for each in (quick, standard, full)} == {64}
    assert (quick.trajectories, quick.noise) == (2, 1)
    assert load_settings(tiny_checkpoint.root, {"steps": 3}, preset="full").steps == 3
    with pytest.raises(UsageError, match="unknown preset 'ful'; did you mean full"):
        load_settings(tiny_checkpoint.root, preset="ful")
    with pytest.raises(UsageError, match="at least one prompt"):
        load_settings(tiny_checkpoint.root, limit=0)


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
    for name in NAMES:
        limits = [row[name].limit for row in rows]
        similarity = name.startswith(("psnr", "ssim")) or "cosine" in name
        assert limits == sorted(limits, reverse=similarity), name


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
