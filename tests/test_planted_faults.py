"""Each fault planted in a variant is found by validation, and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from planting import NANS, ZEROED, plant, wrong_weights, zero_bytes
from validating import (
    QUICK,
    SAFETENSORS,
    Validated,
    copy_of,
    entry_of,
    failed_weights,
    overwrite,
    quick,
    resign,
    structure_of,
)

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.errors import CheckFailed
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Silent
from fluxconv.validators import require_passed, validate
from fluxconv.validators.report import IMAGES
from fluxconv.validators.thresholds import DEFAULT
from fluxconv.validators.weights import compare_weights


def test_flipped_byte_is_found_and_stops_the_run(
    broken: Callable[[str], Variant], tiny_checkpoint: Checkpoint
) -> None:
    variant = broken(SAFETENSORS)
    file = variant.root / variant.manifest.components["transformer"].files[0]
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    own = shutil.copyfile(DEFAULT, variant.root.parent / "own.yaml")
    (report,) = validate(
        [variant],
        tiny_checkpoint,
        settings=QUICK,
        options=quick(variant.root.parent, thresholds=own),
    )
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


#: Faults that cannot be told from rounding: where four levels have to do, a row times 1.3 errs
#: about as any row does, and in groups with one scale each, so does a tensor times 1.05.
UNSEEN = {
    "gguf-q2_k": {"one row times 1.3"},
    "quanto-int2": {
        "one row times 1.3",
        "the whole tensor times 1.05",
        "a block of 64 x 64 transposed",
    },
}
FAMILIES = ("torchao-int8", "bnb-nf4", "gguf-q4_k_m", "gguf-q8_0", "fp8-layerwise", *UNSEEN)


@pytest.mark.parametrize("backend", FAMILIES)
def test_wrong_weights_are_found_and_no_others(
    backend: str, broken: Callable[[str], Variant], tiny_checkpoint: Checkpoint
) -> None:
    variant = broken(backend)
    wrong, faults = wrong_weights(tiny_checkpoint)
    plant(variant, tiny_checkpoint, wrong)
    zero_bytes(variant, ZEROED)
    variant = resign(variant)
    assert structure_of(variant) == ()
    results = compare_weights(variant.root, tiny_checkpoint, Silent())
    named = {problem.split("'")[1] for problem in results["transformer"].problems}
    faults["zeros in the codes"] = [ZEROED]
    unseen = {fault for fault, names in faults.items() if not named.issuperset(names)}
    assert unseen == UNSEEN.get(backend, set())
    assert named <= {name for names in faults.values() for name in names}
    assert results["text_encoder_2"].problems == ()


@pytest.mark.parametrize("backend", NANS)
def test_nan_is_found(
    backend: str, broken: Callable[[str], Variant], tiny_checkpoint: Checkpoint
) -> None:
    variant = broken(backend)
    stored, weight, position = NANS[backend]
    entry = entry_of(variant, stored)
    with entry.file.open("r+b") as stream:
        stream.seek(entry.offset + position)
        stream.write(b"\xff\xff\xff\xff"[: min(4, entry.nbytes)])
    variant = resign(variant)
    if not entry.is_gguf:  # a block has to be decoded to be seen
        (problem,) = structure_of(variant)
        assert problem.endswith(f"the tensor '{stored}' holds NaN or infinity")
    results = compare_weights(variant.root, tiny_checkpoint, Silent())
    assert f"'{weight}' decodes to NaN or infinity" in results["transformer"].problems


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
    variant = resign(copy_of(variants["gguf-q8_0"], tmp_path))
    with pytest.raises(CheckFailed, match="changed since its report"):
        require_passed(variant)
