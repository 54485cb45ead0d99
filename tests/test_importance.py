"""`fluxconv importance`: it measures what the layers see, and writes it whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shapes import held_out_sample
from teacher_forced import Teacher

from fluxconv.commands.main import run
from fluxconv.converters import Checkpoint, open_checkpoint, quantize
from fluxconv.converters.architectures.base import packed_groups
from fluxconv.converters.backends import get_backend
from fluxconv.converters.errors import BadInput, NotACheckpoint, OutputExists
from fluxconv.converters.importance import (
    importance_digest,
    importance_source,
    read_importance,
)
from fluxconv.converters.load import load_checkpoint
from fluxconv.converters.progress import Silent
from fluxconv.validators import importance as measuring
from fluxconv.validators.calibration import CALIBRATION, calibration_settings, committed_prompts
from fluxconv.validators.importance import measure_importance
from fluxconv.validators.settings import DEFAULT

QUICK = {"steps": 2}


def measure(checkpoint: Checkpoint, output: Path, **settings: Any) -> Mapping[str, torch.Tensor]:
    """The importance by the checkpoint's first two prompts, in two steps each."""
    chosen = calibration_settings(checkpoint.root, QUICK | settings, limit=2)
    return measure_importance(checkpoint, output, settings=chosen)


@pytest.fixture(scope="module")
def file(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An importance file of the tiny Flux, by all of its own prompts."""
    output = tmp_path_factory.mktemp("importance") / "importance.safetensors"
    measure_importance(tiny_checkpoint, output)
    return output


# What is measured --------------------------------------------------------------------------------


def test_importance_is_the_mean_square_of_what_each_layer_multiplies(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_PIECE", 1000)  # a layer's rows come in several pieces
    found = measure(tiny_checkpoint, tmp_path / "i.safetensors")

    pipeline = load_checkpoint(tiny_checkpoint, "cpu")
    pipeline.set_progress_bar_config(disable=True)
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    for model in (pipeline.transformer, pipeline.text_encoder_2):
        for name, layer in model.named_modules():
            if isinstance(layer, torch.nn.Linear):
                layer.register_forward_pre_hook(lambda _, given, n=name: seen[n].append(given[0]))
    settings = calibration_settings(tiny_checkpoint.root, QUICK, limit=2)
    for seed, prompt in enumerate(settings.prompts):
        noise = torch.Generator().manual_seed(seed)
        pipeline(prompt, height=64, width=64, num_inference_steps=2, generator=noise,
                 max_sequence_length=settings.max_sequence_length, output_type="latent",
                 guidance_scale=settings.guidance)  # fmt: skip

    assert found.keys() == seen.keys()
    for name, inputs in seen.items():
        rows = torch.cat([each.flatten(end_dim=-2) for each in inputs])
        torch.testing.assert_close(found[name], rows.double().square().mean(0).float())


def test_padding_counts_because_the_model_reads_it(tiny_checkpoint: Checkpoint, file: Path) -> None:
    pipeline = load_checkpoint(tiny_checkpoint, "cpu")
    settings = calibration_settings(tiny_checkpoint.root)
    tokens = pipeline.tokenizer_2(
        list(settings.prompts),
        padding="max_length",
        max_length=settings.max_sequence_length,
        return_tensors="pt",
    )
    assert (tokens.attention_mask == 0).any()
    encoder = pipeline.text_encoder_2.encoder
    with torch.no_grad():
        rows = encoder.block[0].layer[0].layer_norm(encoder.embed_tokens(tokens.input_ids))
    expected = rows.double().square().mean((0, 1)).float()
    found = read_importance(file)["encoder.block.0.layer.0.SelfAttention.q"]
    torch.testing.assert_close(found, expected)


def test_layers_that_are_fused_have_the_same_importance(
    tiny_checkpoint: Checkpoint, file: Path
) -> None:
    found, fused = read_importance(file), 0
    for component in tiny_checkpoint.components.values():
        specs = component.architecture.specs(component.config)
        layers = [spec for spec in specs if spec.kind == "linear"]
        assert {spec.module for spec in layers} <= found.keys()
        for members in packed_groups(s for s in layers if s.name.endswith("weight")).values():
            first, *others = (found[member.module] for member in members)
            assert all(first.equal(other) for other in others)
            fused += bool(others)
    assert fused == 6  # q, k, v of two streams in two blocks; q, k, v, mlp in two


def test_same_seed_same_bytes_and_another_seed_others(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for output, seed in zip(files, (7, 7, 8), strict=True):
        measure(tiny_checkpoint, output, seeds=(seed,))
    first, again, other = (each.read_bytes() for each in files)
    assert first == again
    assert first != other


def test_the_file_says_how_it_was_measured(tiny_checkpoint: Checkpoint, file: Path) -> None:
    with safe_open(file, "pt") as opened:
        said = opened.metadata()
    settings = calibration_settings(tiny_checkpoint.root)
    lines = "".join(f"{prompt}\n" for prompt in settings.prompts)
    expected = {
        "format": "fluxconv importance 1",
        "source": "tiny-flux",
        "prompts": str(len(settings.prompts)),
        "prompts_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "steps": str(settings.steps),
        "seed": "0",
        "height": "64",
    }
    assert {key: said[key] for key in expected} == expected
    assert json.loads(said["versions"])["torch"] == torch.__version__
    loaded, found = load_file(file), read_importance(file)
    assert loaded.keys() == found.keys()
    assert all(loaded[name].equal(vector) for name, vector in found.items())


# What is drawn -----------------------------------------------------------------------------------


def test_calibration_prompts_are_many_and_none_is_a_test_prompt() -> None:
    ours, tests = committed_prompts(CALIBRATION), committed_prompts(DEFAULT)
    assert len(ours) >= 64

    def words(prompt: str) -> str:
        return " ".join("".join(c if c.isalnum() else " " for c in prompt.lower()).split())

    assert len({words(prompt) for prompt in ours}) == len(ours)
    assert not {words(prompt) for prompt in ours} & {words(prompt) for prompt in tests}
    lengths = sorted(len(prompt.split()) for prompt in ours)
    assert lengths[0] <= 2 and lengths[-1] >= 40


def test_prompts_are_the_users_else_the_checkpoints_else_ours(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\n")
    own = committed_prompts(tiny_checkpoint.root / "validation.yaml")
    given = calibration_settings(tiny_checkpoint.root, prompts=tmp_path / "prompts.txt", limit=2)
    assert given.prompts == ("one", "two")
    assert calibration_settings(tiny_checkpoint.root).prompts == own
    assert calibration_settings(tmp_path).prompts == committed_prompts(CALIBRATION)
    (tmp_path / "validation.yaml").write_text("steps: 3\n")
    settings = calibration_settings(tmp_path, limit=5)
    assert settings.prompts == committed_prompts(CALIBRATION)[:5]
    assert settings.steps == 3


# Whole or not at all -----------------------------------------------------------------------------


def test_what_is_there_already_is_left_alone(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    save_file({"weight": torch.ones(3)}, taken)
    before = taken.read_bytes()
    with pytest.raises(OutputExists, match="give --overwrite"):
        measure_importance(tiny_checkpoint, taken)
    with pytest.raises(OutputExists, match="is no importance file"):
        measure_importance(tiny_checkpoint, taken, overwrite=True)
    assert taken.read_bytes() == before


def test_a_failed_run_leaves_the_old_file_and_nothing_else(
    tiny_checkpoint: Checkpoint, file: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(tiny_checkpoint.root, tmp_path / "broken")
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["transformer_blocks.1.attn.to_q.weight"][0, 0] = torch.nan
    save_file(state, weights, {"format": "pt"})
    folder = tmp_path / "out"
    folder.mkdir()
    output = Path(shutil.copy(file, folder / "i.safetensors"))
    settings = calibration_settings(broken, QUICK, limit=1)
    with pytest.raises(BadInput, match="NaN or infinity on cpu") as caught:
        measure_importance(open_checkpoint(broken), output, settings=settings, overwrite=True)
    assert "\n" not in str(caught.value)
    assert output.read_bytes() == file.read_bytes()
    assert list(folder.iterdir()) == [output]


def test_what_a_killed_run_left_is_cleared_and_the_old_file_replaced(
    tiny_checkpoint: Checkpoint, file: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copy(file, tmp_path / "i.safetensors"))
    left = tmp_path / ".i.safetensors.partial"
    left.mkdir()
    (left / "i.safetensors").write_bytes(b"half")
    settings = calibration_settings(tiny_checkpoint.root, QUICK, limit=1)
    found = measure_importance(tiny_checkpoint, output, settings=settings, overwrite=True)
    assert list(tmp_path.iterdir()) == [output]
    assert importance_digest(output) != importance_digest(file)
    assert found.keys() == read_importance(output).keys()


def test_a_lone_component_cannot_be_measured(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    lone = open_checkpoint(tiny_checkpoint.root / "transformer")
    begun = Begun()
    with pytest.raises(NotACheckpoint, match="only a whole pipeline can draw"):
        measure_importance(lone, tmp_path / "i.safetensors", progress=begun)
    assert not list(tmp_path.iterdir())
    assert begun.names == []


class Begun(Silent):
    def __init__(self) -> None:
        self.names: list[str] = []

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self.names.append(task)


def test_the_place_is_looked_at_before_anything_is_loaded(
    tiny_checkpoint: Checkpoint, file: Path
) -> None:
    """Before the checkpoint, too, which may be a download."""
    code = (
        "import sys; from fluxconv.commands.main import run; "
        "code = run(sys.argv[1:]); print('torch' in sys.modules, code)"
    )
    words = [sys.executable, "-c", code, "importance", "no/such-checkpoint", "-o", str(file)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout == "False 3\n"
    assert "exists; choose another file" in done.stderr


def test_a_quantized_checkpoint_is_measured_if_that_is_asked_for(
    tiny_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (variant,) = quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path)
    output = tmp_path / "i.safetensors"
    words = ["importance", str(variant.root), "-o", str(output)]
    assert run(words) == 3
    assert "or --allow-requantize" in capsys.readouterr().err
    more = ["--allow-requantize", "--limit", "1", "--steps", "1"]
    assert run([*words, *more]) == 0
    assert importance_source(output) == "tiny-flux-gguf-q8_0"
    assert "measured on 1 prompt\n" in capsys.readouterr().err


def test_a_model_that_needs_a_picture_is_refused_before_it_is_loaded(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    control = shutil.copytree(tiny_checkpoint.root, tmp_path / "control")
    weights = control / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["x_embedder.weight"] = state["x_embedder.weight"].repeat(1, 2)
    save_file(state, weights, {"format": "pt"})
    config = control / "transformer" / "config.json"
    said = json.loads(config.read_text())
    channels = {"in_channels": 2 * said["in_channels"], "out_channels": said["in_channels"]}
    config.write_text(json.dumps(said | channels))
    with pytest.raises(BadInput, match="draws from a picture"):
        measure_importance(open_checkpoint(control), tmp_path / "i.safetensors")
    assert not (tmp_path / "i.safetensors").exists()


def test_command_writes_the_file_and_says_so(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    output = tmp_path / "new" / "i.safetensors"
    words = [sys.executable, "-m", "fluxconv.commands", "importance", str(tiny_checkpoint.root)]
    more = ["-o", str(output), "--limit", "2", "--steps", "2", "--seed", "5", "--size", "48"]
    done = subprocess.run([*words, *more, "--json", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert (said["prompts"], said["steps"], said["seed"]) == (2, 2, 5)
    assert said["layers"] == len(read_importance(output))
    with safe_open(output, "pt") as opened:
        assert opened.metadata()["width"] == "48"


# What it is for ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["gguf-q2_k", "gguf-q3_k_s", "gguf-q4_k_s"])
def test_same_bytes_less_error_of_the_output(
    backend: str, teacher: Teacher, tiny_checkpoint: Checkpoint, file: Path, tmp_path: Path
) -> None:
    plain = get_backend(backend)
    weighed = plain.configured({"importance": str(file)})
    without, with_it = quantize(tiny_checkpoint, [plain, weighed], tmp_path)
    sizes = [
        sum(stored.nbytes for plan in variant.component_plans().values() for stored in plan.tensors)
        for variant in (without, with_it)
    ]
    assert sizes[0] == sizes[1]
    assert teacher.error(with_it).both < teacher.error(without).both


@pytest.fixture(scope="module")
def teacher(tiny_checkpoint: Checkpoint) -> Teacher:
    """Captions of scenes that neither training nor the importance has seen."""
    prompts = [caption for _, caption in held_out_sample(6, seed=7)]
    assert not set(prompts) & set(calibration_settings(tiny_checkpoint.root).prompts)
    return Teacher(tiny_checkpoint, prompts)
