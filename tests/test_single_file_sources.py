"""A transformer in one file is taken as the very transformer that a folder holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic
import torch
from safetensors.torch import load_file
from single_files import PREFIX, Tensors, packed, save, transformer_of
from validating import QUICK, quick

from fluxconv.cards import write_card
from fluxconv.converters import Checkpoint, Variant, open_checkpoint, plan, quantize
from fluxconv.converters.errors import MissingLicence, NotACheckpoint, UsageError
from fluxconv.converters.reader import ComponentReader
from fluxconv.validators import validate

BACKENDS = ("gguf-q8_0", "bnb-nf4")


@pytest.fixture(scope="module")
def weights(tiny_checkpoint: Checkpoint) -> Tensors:
    return transformer_of(tiny_checkpoint.root)


def _with_other_parts(weights: Tensors) -> Tensors:
    others = {
        "vae.decoder.conv_in.weight": torch.zeros(3, 3),
        "text_encoders.t5xxl.transformer.shared.weight": torch.zeros(7, 4),
        "conditioner.embedders.0.logit_scale": torch.zeros(1),
    }
    return packed(weights, PREFIX) | others


LAYOUTS: dict[str, Callable[[Tensors], Tensors]] = {
    "bfl": packed,
    "bfl, prefixed, among other parts": _with_other_parts,
    "diffusers": dict,
    "bfl in fp32": lambda weights: {k: v.float() for k, v in packed(weights).items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_variants_have_the_bytes_of_the_folders(
    layout: str,
    weights: Tensors,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path: Path,
) -> None:
    file = save(LAYOUTS[layout](weights), tmp_path / "in")
    # GGUF files name their source and its licence, which stands beside a file as beside a folder.
    shutil.copy(tiny_checkpoint.root / "README.md", file.parent)
    source = open_checkpoint(file, base=tiny_checkpoint.root, source="tiny-flux")
    for variant in quantize(source, BACKENDS, tmp_path / "out"):
        assert variant.manifest.files == tiny_variants[variant.manifest.backend].manifest.files
        recorded = set(variant.manifest.source.files)
        assert {file.name, "transformer/config.json", "vae/config.json"} < recorded
        assert "transformer/diffusion_pytorch_model.safetensors" not in recorded


def test_other_parts_are_named_and_left_out(
    weights: Tensors, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file = save(_with_other_parts(weights), tmp_path)
    opened = open_checkpoint(file, base=tiny_checkpoint.root)
    assert (
        "3 tensors of other parts of a model (conditioner, text_encoders, vae)" in opened.notes[0]
    )
    assert opened.components["transformer"].weight_bytes == sum(
        weight.nbytes for weight in weights.values()
    )


@pytest.mark.parametrize("float8", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_without_scales_is_exact(
    float8: torch.dtype, weights: Tensors, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    stored = {name: weight.to(float8) for name, weight in weights.items()}
    file = save(packed(stored), tmp_path)
    opened = open_checkpoint(file, base=tiny_checkpoint.root).components["transformer"]
    for name, weight in stored.items():
        assert torch.equal(opened.read(name), weight.to(torch.bfloat16)), name


def _scaled(weights: Tensors, names: tuple[str, str], per_row: bool) -> Tensors:
    """As community files are: float8 matrices with fp32 scales, the rest in bf16."""
    found: Tensors = {}
    for name, weight in weights.items():
        if weight.ndim != 2:
            found[name] = weight
            continue
        module = name.removesuffix(".weight")
        largest = weight.float().abs().amax(dim=1 if per_row else None, keepdim=per_row)
        scale = largest.clamp(min=1e-12) / 448
        found[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
        found[f"{module}.{names[0]}"] = scale
        found[f"{module}.{names[1]}"] = torch.tensor(1.0)
    return found


def _older(weights: Tensors) -> Tensors:
    marker = {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn)}
    return _scaled(weights, ("scale_weight", "scale_input"), False) | marker


def _newer(weights: Tensors) -> Tensors:
    found = _scaled(weights, ("weight_scale", "input_scale"), False)
    text = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    modules = [name.removesuffix("weight_scale") for name in found if name.endswith("weight_scale")]
    return found | {f"{module}comfy_quant": text for module in modules}


def _by_row(weights: Tensors) -> Tensors:
    return _scaled(weights, ("weight_scale", "input_scale"), True)


def _unpacked(stored: Tensors, weights: Tensors) -> Tensors:
    """The weights of a scaled file by plain arithmetic, under diffusers' names."""
    values: Tensors = {}
    for name, tensor in stored.items():
        module, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias", "scale") or tensor.dtype == torch.float32:
            continue
        values[name] = tensor
        if tensor.dtype == torch.float8_e4m3fn:
            scale = stored.get(f"{module}.scale_weight", stored.get(f"{module}.weight_scale"))
            assert scale is not None
            values[name] = (tensor.float() * scale).to(torch.bfloat16)
    found: Tensors = {}
    entries = synthetic.bfl_entries({name: tuple(w.shape) for name, w in weights.items()})
    for entry in entries:
        flat, at = values[entry.name].reshape(-1), 0
        for piece in entry.pieces:
            if piece.name not in found:
                found[piece.name] = torch.empty(piece.shape, dtype=torch.bfloat16)
            count = piece.stop - piece.start
            found[piece.name].view(-1)[piece.start : piece.stop] = flat[at : at + count]
            at += count
    return found


@pytest.mark.parametrize("form", [_older, _newer, _by_row])
def test_scaled_float8_is_multiplied_out(
    form: Callable[[Tensors], Tensors],
    weights: Tensors,
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    stored = form(packed(weights))
    opened = open_checkpoint(save(stored, tmp_path), base=tiny_checkpoint.root)
    component = opened.components["transformer"]
    want = _unpacked(stored, weights)
    assert set(want) == set(weights)
    for name, weight in want.items():
        assert torch.equal(component.read(name), weight), name
    streamed = set()
    for read in ComponentReader(component):  # scales stand before or behind their weights
        for name, weight in read.weights:
            assert torch.equal(weight, want[name]), name
            streamed.add(name)
        read.release()
    assert streamed == set(weights)


def test_it_is_the_reference_of_its_variants(
    weights: Tensors, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The source draws from the scaled file and the base, in a process of its own."""
    file = save(_newer(packed(weights)), tmp_path / "in")
    source = open_checkpoint(file, base=tiny_checkpoint.root)
    (variant,) = quantize(source, ["gguf-q8_0"], tmp_path / "out")
    (report,) = validate([variant], source, settings=QUICK, options=quick(tmp_path))
    assert report.verdict.passed, [c.text for c in report.verdict.checks if not c.passed]
    assert report.reference_difference is None
    assert report.pictures


def _fluxconv(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fluxconv.commands", *map(str, words), "--json"]
    return subprocess.run(command, capture_output=True, text=True)


def test_commands_take_it_with_a_base(
    weights: Tensors, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file = save(_with_other_parts(weights), tmp_path)
    place = (file, "--base", tiny_checkpoint.root)
    planned = _fluxconv("plan", *place, "--backend", "bnb-nf4")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["variants"][0]["carried_bytes"] > 0
    assert "3 tensors of other parts" in planned.stderr
    picture = tmp_path / "picture.png"
    words = ("generate", *place, "--prompt", "a red circle", "--steps", 1, "-o", picture)
    drawn = _fluxconv(*words)
    assert drawn.returncode == 0, drawn.stderr
    assert picture.is_file()


def test_without_a_base_it_is_a_lone_transformer(tmp_path: Path) -> None:
    """The config is inferred; it must be the one that the folder states."""
    config = synthetic.transformer_config(double=2, single=3, heads=2, joint=64, pooled=32)
    synthetic.write_transformer(tmp_path / "folder", config)
    (file,) = synthetic.write_transformer(tmp_path / "file", config, layout="bfl", prefix=PREFIX)
    lone = open_checkpoint(file)
    assert not lone.is_pipeline and lone.carried_files() == {}
    (ours,) = quantize(lone, ["bnb-nf4"], tmp_path / "ours")
    folder = open_checkpoint(tmp_path / "folder" / "transformer")
    (theirs,) = quantize(folder, ["bnb-nf4"], tmp_path / "theirs")
    assert ours.manifest.files == theirs.manifest.files
    assert set(ours.manifest.source.files) == {file.name}
    assert json.loads((ours.root / "transformer" / "config.json").read_text())["num_layers"] == 2


def test_heads_of_another_width_need_a_base(weights: Tensors, tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match=r"heads of width 64, not FLUX\.1's 128.*--base"):
        open_checkpoint(save(packed(weights), tmp_path))


def test_a_file_of_another_family_does_not_fit_the_base(
    weights: Tensors, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    other = {name: w for name, w in packed(weights).items() if not name.startswith("guidance_in")}
    other["img_in.weight"] = torch.zeros(256, 384, dtype=torch.bfloat16)
    with pytest.raises(NotACheckpoint) as caught:
        open_checkpoint(save(other, tmp_path), base=tiny_checkpoint.root)
    assert "in_channels is 384 and not 16" in str(caught.value)
    assert "guidance_embeds is False and not True" in str(caught.value)


def test_a_single_file_cannot_be_carried_over(
    weights: Tensors, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    source = open_checkpoint(save(packed(weights), tmp_path), base=tiny_checkpoint.root)
    with pytest.raises(UsageError, match="quantize transformer, too"):
        plan(source, ["bnb-nf4"], ("text_encoder_2",))


def test_a_lone_folder_takes_its_place_in_the_base(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    lone = Path(
        shutil.copytree(tiny_checkpoint.root / "transformer", tmp_path / "in" / "tiny-flux")
    )
    base = Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "base"))
    for file in (base / "transformer").glob("*.safetensors"):
        file.unlink()  # the base's own is not looked at
    source = open_checkpoint(lone, base=base)
    (both,) = quantize(source, ["bnb-nf4"], tmp_path / "both")
    assert both.manifest.files == tiny_variants["bnb-nf4"].manifest.files
    (t5_alone,) = quantize(source, ["bnb-nf4"], tmp_path / "t5", components=("text_encoder_2",))
    carried = "transformer/diffusion_pytorch_model.safetensors"
    assert (t5_alone.root / carried).read_bytes() == (tiny_checkpoint.root / carried).read_bytes()


def test_a_whole_pipeline_takes_no_base(tiny_checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="whole pipeline"):
        open_checkpoint(tiny_checkpoint.root, base=tiny_checkpoint.root)
    with pytest.raises(NotACheckpoint, match="no pipeline folder"):
        open_checkpoint(
            tiny_checkpoint.root / "transformer", base=tiny_checkpoint.root / "transformer"
        )


@pytest.mark.slow
def test_diffusers_own_converter_splits_the_same(tmp_path: Path) -> None:
    """At FLUX.1's real width, the only one that it takes."""
    from diffusers.loaders.single_file_utils import (
        convert_flux_transformer_checkpoint_to_diffusers,
    )

    config = synthetic.transformer_config(double=1, single=1)
    (file,) = synthetic.write_transformer(tmp_path, config, layout="bfl")
    component = open_checkpoint(file).components["transformer"]
    want = convert_flux_transformer_checkpoint_to_diffusers(load_file(file))
    assert set(want) == set(component.shapes)
    for name, weight in component.weights():
        assert torch.equal(weight, want.pop(name)), name
    assert not want


def test_its_licence_is_not_that_of_the_base(
    weights: Tensors, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Whoever made the file decides; the base's own terms are those of the base's parts."""
    file = save(LAYOUTS["bfl"](weights), tmp_path / "in")
    (variant,) = quantize(
        open_checkpoint(file, base=tiny_checkpoint.root), ["torchao-int8"], tmp_path / "out"
    )
    assert variant.manifest.source.base == tiny_checkpoint.root.name
    with pytest.raises(MissingLicence):
        write_card(variant)
    (file.parent / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (variant,) = quantize(
        open_checkpoint(file, base=tiny_checkpoint.root), ["torchao-int8"], tmp_path / "licensed"
    )
    card = write_card(variant).read_text()
    assert f"--base {tiny_checkpoint.root.name}" in card
    assert f"is that of {tiny_checkpoint.root.name}" in card
