"""GGUF files and the types in them, beside gguf-py, the format's own library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from test_gguf_legacy import GGUF_PYS, by_gguf_py

from fluxconv.converters import Checkpoint, Variant, plan, quantize
from fluxconv.converters.backends import Target, all_backends, get_backend
from fluxconv.converters.backends.gguf import Gguf
from fluxconv.converters.gguf import decode, encode
from fluxconv.converters.gguf.types import TYPES
from fluxconv.converters.load import load_decoded
from fluxconv.converters.stored import read_entries
from fluxconv.converters.variant import hash_file

BACKENDS = {name: each for name, each in all_backends().items() if isinstance(each, Gguf)}
#: How far weights may be from what their blocks decode to, as a part of their root mean square: a
#: little more than the C reference's plain path has on Gaussian weights. bf16 fits the floats.
BOUNDS = {
    **{"F32": 0, "BF16": 0, "F16": 1e-3, "Q8_0": 0.006, "Q6_K": 0.02, "Q5_K": 0.04, "Q5_1": 0.04},
    **{"Q5_0": 0.045, "Q4_K": 0.08, "IQ4_XS": 0.08, "IQ4_NL": 0.08, "Q4_1": 0.08, "Q4_0": 0.09},
    **{"Q3_K": 0.16, "Q2_K": 0.3},
}


def test_every_legacy_type_is_a_backend() -> None:
    """With its nominal bits a weight, scales included."""
    bits = {"q8_0": 8.5, "q5_1": 6.0, "q5_0": 5.5, "q4_1": 5.0, "q4_0": 4.5, "f16": 16, "bf16": 16}
    assert {name: BACKENDS[f"gguf-{name}"].bits for name in bits} == bits


def test_block_sizes_are_gguf_pys() -> None:
    import gguf

    for name, kind in TYPES.items():
        sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        assert (kind.weights, kind.nbytes) == sizes


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "stem"),
    [
        ("transformer", "tiny-flux"),
        # gguf-py takes seconds for T5's tokenizer.
        pytest.param("text_encoder_2", "tiny-flux-text_encoder_2", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gguf_reader_lists_the_plan(
    backend: str,
    part: str,
    stem: str,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
) -> None:
    import gguf

    label = BACKENDS[backend].mix
    ((component,),) = (each.components for each in plan(tiny_checkpoint, [backend], (part,)))
    reader = gguf.GGUFReader(tiny_variants[backend].root / f"{stem}-{label}.gguf")
    found = {
        t.name: (t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)), int(t.n_bytes))
        for t in reader.tensors
    }
    stored = [s for t in component.tensors for s in t.stored]
    assert found == {s.name: (s.dtype, s.shape, s.nbytes) for s in stored}
    general = {
        "general.architecture": component.architecture.gguf,
        "general.quantization_version": 2,
        "general.file_type": gguf.LlamaFileType[f"MOSTLY_{label}"],
    }
    assert {name: reader.fields[name].contents() for name in general} == general


@pytest.fixture(scope="module")
def source(tiny_checkpoint: Checkpoint) -> Mapping[str, torch.Tensor]:
    """Every weight of the tiny pipeline, by its own name."""
    return {
        name: weight
        for component in tiny_checkpoint.components.values()
        for name, weight in component.weights()
    }


def _packed(target: Target, source: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([source[part.tensor][part.start : part.stop] for part in target.slices])


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gguf_py_decodes_every_tensor_to_its_weight(
    backend: str,
    part: str,
    source: Mapping[str, torch.Tensor],
    tiny_variants: dict[str, Variant],
) -> None:
    variant = tiny_variants[backend]
    component = variant.component_plans()[part]
    (file,) = component.files
    entries = {entry.name: entry for entry in read_entries(variant.root / file.name)}
    for tensor in component.tensors:
        weight = _packed(tensor.target, source).float()
        entry = entries[tensor.name]
        found = _by_gguf_pys_decoder(entry.read(), entry.dtype, entry.shape)
        error = float((found - weight).norm() / weight.norm().clamp(min=1e-30))
        assert error <= BOUNDS[entry.dtype], f"{tensor.name} as {entry.dtype}"


def _by_gguf_pys_decoder(
    data: torch.Tensor, type_name: str, shape: tuple[int, ...]
) -> torch.Tensor:
    import gguf

    kind = gguf.GGMLQuantizationType[type_name]
    rows = data.numpy().reshape(-1, TYPES[type_name].row_bytes(shape[-1]))
    return torch.from_numpy(gguf.dequantize(rows, kind)).view(shape)


FUSED = "single_blocks.1.linear1.weight"


@pytest.mark.parametrize("backend", BACKENDS)
def test_streamed_blocks_are_those_of_the_whole_weight(
    backend: str, source: Mapping[str, torch.Tensor], tiny_variants: dict[str, Variant]
) -> None:
    """One fused weight, q over k over v over the feed-forward, against the encoder given it all."""
    type_name, fused, data = _fused(tiny_variants[backend], source)
    assert torch.equal(encode(fused, type_name).flatten(), data)


@pytest.fixture(scope="module")
def fast_variants(
    tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Variant]:
    """Of the types that gguf-py encodes, too."""
    wanted = {
        name: each.configured(
            {"effort": "fast"} if "effort" in type(each.options).model_fields else {}
        )
        for name, each in BACKENDS.items()
        if each.type_name in GGUF_PYS
    }
    folder = tmp_path_factory.mktemp("fast")
    parts = ("transformer",)
    made = quantize(tiny_checkpoint, list(wanted.values()), folder, components=parts)
    return dict(zip(wanted, made, strict=True))


@pytest.mark.parametrize("backend", [n for n, b in BACKENDS.items() if b.type_name in GGUF_PYS])
def test_fast_blocks_equal_gguf_pys(
    backend: str, source: Mapping[str, torch.Tensor], fast_variants: dict[str, Variant]
) -> None:
    type_name, fused, data = _fused(fast_variants[backend], source)
    assert data.numpy().tobytes() == by_gguf_py(fused, type_name)


def _fused(
    variant: Variant, source: Mapping[str, torch.Tensor]
) -> tuple[str, torch.Tensor, torch.Tensor]:
    """The type of the fused weight, the weight, and its bytes in the file."""
    plan = variant.component_plans()["transformer"]
    (tensor,) = (tensor for tensor in plan.tensors if tensor.name == FUSED)
    entries = read_entries(variant.root / plan.files[0].name)
    data = {entry.name: entry for entry in entries}[FUSED].read()
    return tensor.stored[0].dtype, _packed(tensor.target, source), data


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_transformers_opens_the_text_encoder(
    backend: str, tiny_variants: dict[str, Variant]
) -> None:
    """With the gated GELU of its config: with ReLU the result would be another."""
    variant = tiny_variants[backend]
    component = variant.component_plans()["text_encoder_2"]
    assert component.backend.cannot_run(component.architecture, component.config, "cpu") is None
    files = tuple(file.name for file in component.files)
    native = component.backend.load(variant.root, "text_encoder_2", files, "cpu")
    decoded = load_decoded(variant.root, component)
    tokens = torch.arange(1, 33)[None]
    with torch.inference_mode():
        have, want = (model(tokens).last_hidden_state for model in (native, decoded))
    assert want.std() > 0 and torch.equal(have, want)


# Metadata ----------------------------------------------------------------------------------------


def test_metadata_says_where_a_file_comes_from_and_how_it_was_made(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """As FLUX.1-dev's README and gguf-py's own names have it, in one order for all."""
    import gguf
    from safetensors.torch import save_file

    vectors = {"transformer_blocks.0.attn.to_q": torch.ones(256)}
    importance = tmp_path / "importance.safetensors"
    save_file(vectors, importance, metadata={"format": "fluxconv importance 1"})
    licence = {"license": "other", "license_name": "flux-1-dev", "license_link": "LICENSE.md"}
    repository, revision = "black-forest-labs/FLUX.1-dev", "0123456789" * 4
    checkpoint = replace(
        tiny_checkpoint, source=repository, revision=revision, front_matter=licence
    )
    backend = get_backend("gguf-q4_0").configured({"effort": "fast", "importance": importance})
    made = quantize(
        checkpoint, ["gguf-f16", backend], tmp_path / "out", components=("transformer",)
    )
    weights = sum(w.numel() for _, w in tiny_checkpoint.components["transformer"].weights())
    keys = gguf.Keys.General
    expected = {
        keys.ARCHITECTURE: "flux",
        keys.TYPE: "model",
        keys.NAME: "tiny-flux",
        keys.SIZE_LABEL: gguf.size_label(weights, 0, 0, 0),
        keys.LICENSE: "other",
        keys.LICENSE_NAME: "flux-1-dev",
        keys.LICENSE_LINK: "LICENSE.md",
        keys.SOURCE_URL: f"https://huggingface.co/{repository}/tree/{revision}",
        keys.SOURCE_REPO_URL: f"https://huggingface.co/{repository}",
        keys.BASE_MODEL_COUNT: 1,
        keys.BASE_MODEL_NAME.format(id=0): "FLUX.1-dev",
        keys.BASE_MODEL_VERSION.format(id=0): revision,
        keys.BASE_MODEL_REPO_URL.format(id=0): f"https://huggingface.co/{repository}",
        keys.QUANTIZED_BY: "fluxconv",
        "fluxconv.version": version("fluxconv"),
        "fluxconv.effort": "fast",
        "fluxconv.importance.sha256": hash_file(importance).sha256,
        "quantize.imatrix.entries_count": 1,
        keys.QUANTIZATION_VERSION: 2,
        keys.FILE_TYPE: gguf.LlamaFileType.MOSTLY_Q4_0,
    }
    found = [_metadata(variant) for variant in made]
    assert list(found[1].items()) == list(expected.items())
    of_blocks = (
        *("fluxconv.effort", "fluxconv.importance.sha256"),
        "quantize.imatrix.entries_count",
    )
    assert list(found[0]) == [key for key in expected if key not in of_blocks]


def _metadata(variant: Variant) -> dict[str, Any]:
    import gguf

    (file,) = variant.root.glob("*.gguf")
    reader = gguf.GGUFReader(file)
    fields = reader.fields.items()
    return {name: field.contents() for name, field in fields if not name.startswith("GGUF.")}


# Encoders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_name", TYPES)
def test_pieces_of_rows_make_the_same_bytes(type_name: str) -> None:
    """More weights than are in work at once, in rows that do not divide them."""
    weight = torch.randn(700, 1280, generator=torch.Generator().manual_seed(0)).bfloat16()
    whole = encode(weight, type_name)
    assert torch.equal(whole, torch.cat([encode(rows, type_name) for rows in weight.split(150)]))
    assert torch.equal(whole, encode(weight.t().contiguous().t(), type_name))


@pytest.mark.parametrize("type_name", TYPES)
def test_bytes_decode_to_the_weight(type_name: str) -> None:
    weight = torch.randn(8, 768, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    decoded = decode(encode(weight, type_name).flatten(), type_name, 768)
    assert decoded.dtype == torch.float32 and decoded.shape == weight.shape
    assert float((decoded - weight).norm() / weight.norm()) <= BOUNDS[type_name]
