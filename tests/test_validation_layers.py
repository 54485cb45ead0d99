"""Each layer measures what it says: held against second implementations and exact copies."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from teacher_forced import Teacher
from validating import PROMPTS, QUICK, Validated

from fluxconv.converters import Checkpoint
from fluxconv.converters.checkpoint import Opening
from fluxconv.converters.errors import CheckFailed
from fluxconv.converters.load import load_checkpoint
from fluxconv.converters.progress import Silent
from fluxconv.validators.drawing import SOURCE, draw, opened, pictures_of, trajectories_of
from fluxconv.validators.recording import Recorded
from fluxconv.validators.report import Settings
from fluxconv.validators.teacher import compare_steps, compare_text

PICTURES = pictures_of(QUICK)


@pytest.fixture(scope="module")
def recordings(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the source draws, recorded."""
    folder = tmp_path_factory.mktemp("recordings")
    pipeline, _ = opened(Opening(str(tiny_checkpoint.root)), SOURCE, "cpu", "plain", QUICK)
    draw(pipeline, PICTURES, QUICK, folder, Silent(), record=True)
    return folder


def test_source_against_its_own_recording_has_no_error(
    tiny_checkpoint: Checkpoint, recordings: Path
) -> None:
    pipeline = load_checkpoint(tiny_checkpoint, "cpu")
    torch.set_num_threads(1)
    steps = compare_steps(pipeline, PICTURES, recordings, QUICK.steps, Silent())
    text = compare_text(pipeline, PICTURES, recordings, Silent())
    assert steps.relative_rms < 1e-3 and steps.cosine_min > 0.99999
    assert text.relative_rms < 1e-3 and text.cosine_min > 0.99999
    assert [len(each.steps) for each in steps.trajectories] == [QUICK.steps] * len(PICTURES)


def test_recording_holds_every_step_and_the_latents_go_where_the_velocity_says(
    tiny_checkpoint: Checkpoint, recordings: Path
) -> None:
    """Euler's method, done again by hand: what the scheduler does with the velocity."""
    recorded = Recorded(recordings / f"{PICTURES[0].stem}.safetensors", "cpu", torch.float32)
    steps = list(recorded.steps())
    assert len(steps) == QUICK.steps
    for (given, velocity), (after, _) in pairwise(steps):
        towards = after["timestep"] - given["timestep"]
        expected = given["hidden_states"] + towards.view(-1, 1, 1) * velocity
        assert torch.allclose(after["hidden_states"], expected, atol=0.05)


def test_exchanged_weights_show_in_the_steps_and_in_the_text(
    tiny_checkpoint: Checkpoint, recordings: Path
) -> None:
    pipeline = load_checkpoint(tiny_checkpoint, "cpu")
    with torch.no_grad():
        for attention, names in (
            (pipeline.transformer.transformer_blocks[0].attn, ("to_q", "to_k")),
            (pipeline.text_encoder_2.encoder.block[0].layer[0].SelfAttention, ("q", "k")),
        ):
            q, k = (getattr(attention, name).weight for name in names)
            q[:], k[:] = k.clone(), q.clone()
    steps = compare_steps(pipeline, PICTURES, recordings, QUICK.steps, Silent())
    text = compare_text(pipeline, PICTURES, recordings, Silent())
    assert steps.relative_rms > 0.3 and text.relative_rms > 0.3


def test_nan_fails_the_layer_and_names_the_prompt(
    tiny_checkpoint: Checkpoint, recordings: Path
) -> None:
    pipeline = load_checkpoint(tiny_checkpoint, "cpu")
    with torch.no_grad():
        pipeline.transformer.proj_out.bias.fill_(math.nan)
    with pytest.raises(CheckFailed, match="the transformer gives NaN or infinity for 'a red"):
        compare_steps(pipeline, PICTURES, recordings, QUICK.steps, Silent())


def test_text_errors_leave_padding_out(
    tiny_checkpoint: Checkpoint, recordings: Path, tmp_path: Path
) -> None:
    pipeline = load_checkpoint(tiny_checkpoint, "cpu")
    name = f"{PICTURES[0].stem}.safetensors"
    tensors = load_file(recordings / name)
    padding = tensors["tokens"][0] == pipeline.text_encoder_2.config.pad_token_id
    assert padding.any() and not padding.all()
    tensors["states"][0][padding] += 100
    save_file(tensors, tmp_path / name)
    text = compare_text(pipeline, PICTURES[:1], tmp_path, Silent())
    assert text.relative_rms < 1e-3
    assert len(text.prompts[0].errors) == len(text.prompts[0].cosines) == int((~padding).sum())


def test_step_errors_agree_with_a_second_implementation(
    validated: Validated, tiny_checkpoint: Checkpoint
) -> None:
    """Which draws other noise and computes in fp32; so the two agree in size, not in digits."""
    variants, reports, _ = validated
    teacher = Teacher(tiny_checkpoint, list(PROMPTS))
    for name in ("gguf-q2_k", "gguf-q3_k_s", "bnb-nf4"):
        report = reports[list(variants).index(name)]
        assert report.steps
        other = teacher.error(variants[name]).transformer
        assert report.steps.relative_rms == pytest.approx(other, rel=0.35)


def test_trajectories_take_other_prompts_before_other_seeds() -> None:
    settings = Settings(prompts=("a", "b"), seeds=(1, 2), trajectories=3)
    assert [tuple(each) for each in trajectories_of(settings)] == [("a", 1), ("b", 1), ("a", 2)]
    assert [tuple(each) for each in pictures_of(settings)] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ]
