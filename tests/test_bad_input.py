"""Bad input gets one clear sentence and the right exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, open_variant, quantize
from fluxconv.converters.errors import (
    BadWeight,
    CheckpointNotFound,
    FluxconvError,
    MalformedFile,
    NotACheckpoint,
    NotAVariant,
    OutputExists,
    UnknownBackend,
    UsageError,
)
from fluxconv.converters.progress import Silent

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "tiny-flux"))


def _truncate(root: Path) -> None:
    with (root / WEIGHTS).open("r+b") as stream:
        stream.truncate(100_000)


def _garble(root: Path) -> None:
    with (root / WEIGHTS).open("r+b") as stream:
        stream.seek(8)
        stream.write(b"\xff" * 64)


def _duplicate_key(root: Path) -> None:
    raw = (root / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].rstrip()
    first = header.index(b'"context_embedder.bias"')
    entry = header[first : header.index(b"}", first) + 1]
    doubled = header[:-1] + b"," + entry + b"}"
    (root / WEIGHTS).write_bytes(struct.pack("<Q", len(doubled)) + doubled + raw[8 + length :])


def _nan(root: Path) -> None:
    weights = load_file(root / WEIGHTS)
    weights["transformer_blocks.1.attn.to_q.weight"][3, 5] = float("nan")
    save_file(weights, root / WEIGHTS, metadata={"format": "pt"})


def _drop_tensor(root: Path) -> None:
    weights = load_file(root / WEIGHTS)
    del weights["transformer_blocks.1.attn.to_q.weight"]
    save_file(weights, root / WEIGHTS, metadata={"format": "pt"})


def _wrong_shape(root: Path) -> None:
    weights = load_file(root / WEIGHTS)
    weights["proj_out.bias"] = torch.zeros(3, dtype=torch.bfloat16)
    save_file(weights, root / WEIGHTS, metadata={"format": "pt"})


def _no_weights(root: Path) -> None:
    (root / WEIGHTS).unlink()


def _pickle(root: Path) -> None:
    (root / WEIGHTS).rename(root / "transformer/diffusion_pytorch_model.bin")


def _not_flux(root: Path) -> None:
    (root / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')


def _config_not_json(root: Path) -> None:
    (root / "transformer/config.json").write_text("{")


def _config_without_width(root: Path) -> None:
    config = json.loads((root / "transformer/config.json").read_text())
    del config["num_attention_heads"]
    (root / "transformer/config.json").write_text(json.dumps(config))


def _index_escapes(root: Path) -> None:
    (root / WEIGHTS).unlink()
    index = {"weight_map": {"x": "../../secret.safetensors"}}
    (root / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (_truncate, MalformedFile, "truncated"),
        (_garble, MalformedFile, "not valid JSON"),
        (_duplicate_key, MalformedFile, "twice"),
        (_nan, BadWeight, "transformer_blocks.1.attn.to_q.weight' contains NaN"),
        (_drop_tensor, NotACheckpoint, "1 missing tensors, such as transformer_blocks.1.attn.to_q"),
        (_wrong_shape, NotACheckpoint, "'proj_out.bias' has shape [3]"),
        (_no_weights, NotACheckpoint, "is missing"),
        (_pickle, NotACheckpoint, "pickle"),
        (_not_flux, NotACheckpoint, "StableDiffusionPipeline"),
        (_config_not_json, MalformedFile, "not valid JSON"),
        (_config_without_width, NotACheckpoint, "num_attention_heads"),
        (_index_escapes, MalformedFile, "beside it"),
    ],
)
def test_damaged_source_is_refused_and_nothing_is_left(
    damage: Callable[[Path], None],
    error: type[FluxconvError],
    words: str,
    copy: Path,
    tmp_path: Path,
) -> None:
    damage(copy)
    output = tmp_path / "out"
    with pytest.raises(error) as caught:
        quantize(open_checkpoint(copy), ["bnb-nf4", "gguf-q8_0"], output)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert not output.exists() or not list(output.iterdir())


def test_missing_path_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(NotACheckpoint):
        open_checkpoint(tmp_path)


def test_unknown_names_get_the_nearest(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UnknownBackend, match="did you mean bnb-nf4"):
        quantize(tiny_checkpoint, ["bnb-nf3"], tmp_path)
    with pytest.raises(UsageError, match="text_encoder_2"):
        quantize(tiny_checkpoint, ["bnb-nf4"], tmp_path, components=("text_encoder",))
    with pytest.raises(UsageError, match="twice"):
        quantize(tiny_checkpoint, ["bnb-nf4", "bnb-nf4"], tmp_path)


def test_existing_output_is_left_alone(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    ours = tmp_path / "tiny-flux-bnb-nf4"
    shutil.copytree(tiny_variants["bnb-nf4"].root, ours)
    before = (ours / "fluxconv.json").read_bytes()
    with pytest.raises(OutputExists, match=r"components.*--overwrite"):
        quantize(tiny_checkpoint, ["bnb-nf4"], tmp_path, components=("transformer",))
    assert (ours / "fluxconv.json").read_bytes() == before

    (ours / "fluxconv.json").unlink()  # now somebody else's folder
    with pytest.raises(OutputExists, match="not a variant"):
        quantize(tiny_checkpoint, ["bnb-nf4"], tmp_path, overwrite=True)
    assert (ours / "model_index.json").is_file()


def test_overwrite_replaces_with_the_same_bytes(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    ours = tmp_path / "tiny-flux-gguf-q8_0"
    shutil.copytree(tiny_variants["gguf-q8_0"].root, ours)
    before = (ours / "fluxconv.json").read_bytes()
    quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path, overwrite=True)
    assert (ours / "fluxconv.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny-flux-gguf-q8_0"]


def test_a_run_killed_while_replacing_left_the_old_variant(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """The moment between taking the old one away and putting the new one in its place."""
    place = tmp_path / "tiny-flux-gguf-q8_0"
    shutil.copytree(tiny_variants["gguf-q8_0"].root, tmp_path / f".{place.name}.old")
    quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    open_variant(place).check_hashes(Silent())


def test_two_runs_on_one_output(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    from fluxconv.converters.staging import staged

    with staged(tmp_path / "tiny-flux-bnb-nf4") as folder:
        (folder / "fluxconv.json").write_text("{}")
        with pytest.raises(OutputExists, match="another run"):
            quantize(tiny_checkpoint, ["bnb-nf4"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-flux-bnb-nf4"]


def test_changed_variant_is_noticed(tiny_variants: dict[str, Variant], tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny_variants["bnb-nf4"].root, tmp_path / "v"))
    open_variant(place).check_hashes(Silent())
    with (place / WEIGHTS).open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)
        stream.seek(-1, 2)
        stream.write(bytes([last[0] ^ 1]))
    with pytest.raises(NotAVariant, match="differs from its hash"):
        open_variant(place).check_hashes(Silent())


def test_manifest_cannot_name_files_outside(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    place = Path(shutil.copytree(tiny_variants["bnb-nf4"].root, tmp_path / "v"))
    manifest = json.loads((place / "fluxconv.json").read_text())
    manifest["files"]["../../etc/passwd"] = {"size": 1, "sha256": "0" * 64}
    (place / "fluxconv.json").write_text(json.dumps(manifest))
    with pytest.raises(NotAVariant, match="outside the variant"):
        open_variant(place)
