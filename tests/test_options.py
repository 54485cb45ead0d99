"""What a user sets about a backend: checked before work starts, kept in name, manifest and card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import save_file
from test_commands import fluxconv

from fluxconv.commands.options import chosen_backends
from fluxconv.converters import Checkpoint, plan, quantize
from fluxconv.converters.backends import all_backends, get_backend, has_cuda, missing, require
from fluxconv.converters.errors import BadInput, MissingRequirement, OutputExists, UsageError
from fluxconv.converters.gguf import encode
from fluxconv.converters.progress import Silent
from fluxconv.converters.stored import read_entries
from fluxconv.converters.variant import open_variant


def test_a_setting_goes_to_every_backend_that_has_it_or_to_the_one_named() -> None:
    names = ("bnb-nf4", "bnb-fp4", "torchao-int8")
    nf4, fp4, int8 = chosen_backends(names, ("double_quant=true",), (), ())
    assert nf4.options.changed() == fp4.options.changed() == {"double_quant": True}
    assert int8.options.changed() == {}
    nf4, fp4, _ = chosen_backends(names, ("bnb-fp4:double_quant=true",), ("proj_out",), ())
    assert nf4.options.changed() == {"skip": ["proj_out"]}
    assert fp4.options.changed() == {"skip": ["proj_out"], "double_quant": True}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("double_quants=true",), "did you mean double_quant?"),
        (("compute_dtype=bfloat",), "bfloat16, float16, float32.*did you mean bfloat16"),
        (("skip=proj_out",), "give --skip"),
        (("effort=fast",), "give --effort instead"),
        (("importance=file",), "give --importance instead"),
        (("double_quant=maybe",), "'maybe' is not one of true, false"),
        (("bnb-nf5:double_quant=1",), "did you mean bnb-nf4?"),
        (("double_quant",), "KEY=VALUE"),
    ],
)
def test_a_wrong_setting_gets_the_nearest_right_one(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen_backends(("bnb-nf4",), settings, (), ())


@pytest.mark.parametrize("name", list(all_backends()))
@pytest.mark.parametrize("pattern", ["no_such_module", "norm_q"])
def test_a_skip_that_would_change_nothing_is_refused(
    name: str, pattern: str, tiny_checkpoint: Checkpoint
) -> None:
    backend = get_backend(name).configured({"skip": [pattern]})
    with pytest.raises(UsageError, match="matches no module"):
        plan(tiny_checkpoint, [backend])


@pytest.mark.parametrize("name", [name for name in all_backends() if name != "fp8-layerwise"])
def test_skip_takes_both_kinds_of_names(name: str, tiny_checkpoint: Checkpoint) -> None:
    kept = []
    for pattern in (r"^transformer_blocks\.1\.ff\.net\.2$", r"^double_blocks\.1\.img_mlp\.2$"):
        backend = get_backend(name).configured({"skip": [pattern]})
        (planned,) = plan(tiny_checkpoint, [backend], ("transformer",))
        kept.append([t.name for t in planned.components[0].tensors if not t.quantized])
    assert kept[0] == kept[1]
    (whole,) = plan(tiny_checkpoint, [name], ("transformer",))
    assert len(kept[0]) > sum(not t.quantized for t in whole.components[0].tensors)


def test_settings_survive_in_name_and_manifest(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    backend = get_backend("bnb-nf4").configured({"skip": ["proj_out"], "double_quant": True})
    (made,) = quantize(tiny_checkpoint, [backend], tmp_path)
    assert made.name.startswith("tiny-flux-bnb-nf4-skip-")
    assert made.name.endswith("-double-quant")
    opened = open_variant(made.root)
    assert opened.manifest.options == {"skip": ["proj_out"], "double_quant": True}
    assert opened.backend == backend


@pytest.mark.skipif(has_cuda(), reason="there is a GPU here")
def test_a_backend_that_needs_a_gpu_says_so_at_once(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    backend = get_backend("torchao-int4")
    assert "GPU" in (missing(backend, "cpu") or "")
    with pytest.raises(MissingRequirement, match="torchao-int4 quantizes on cuda"):
        require(backend, "cpu")
    with pytest.raises(MissingRequirement):
        quantize(tiny_checkpoint, [backend], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# How long GGUF's encoders search, and what they weigh errors by ----------------------------------

TRANSFORMER = ("transformer",)
Vectors = Mapping[str, torch.Tensor]


def test_effort_goes_to_every_backend_that_searches() -> None:
    names = ("gguf-q4_k_m", "gguf-q8_0", "gguf-f16", "bnb-nf4")
    chosen = chosen_backends(names, (), (), (), effort="fast")
    assert [each.label for each in chosen] == [
        *("gguf-q4_k_m-fast", "gguf-q8_0"),
        *("gguf-f16", "bnb-nf4"),
    ]
    assert chosen[0].options.changed() == {"effort": "fast"}
    names = ("gguf-q4_k_m", "gguf-q4_0")
    one, other = chosen_backends(names, ("gguf-q4_0:effort=best",), (), (), effort="fast")
    assert (one.options.changed(), other.options.changed()) == ({"effort": "fast"}, {})
    with pytest.raises(UsageError, match="effort: only GGUF backends"):
        chosen_backends(("gguf-f16", "bnb-nf4"), (), (), (), effort="fast")
    with pytest.raises(UsageError, match="'fastest' is not one of fast, best; did you mean fast"):
        get_backend("gguf-q4_0").configured({"effort": "fastest"})


def test_a_setting_that_changes_no_byte_is_in_no_name(tiny_checkpoint: Checkpoint) -> None:
    """Q8_0 is never searched for; another type, which a rule brings, is."""
    idle = {"effort": "fast", "unbiased": True}
    backend = get_backend("gguf-q8_0")
    assert backend.configured(idle) == backend
    rule = {"tensor_types": ("img_mlp=Q4_0",)}
    searching = backend.configured(idle | rule)
    assert searching.options.changed().keys() == idle.keys() - {"effort"} | rule.keys()
    (planned,) = plan(tiny_checkpoint, [backend.configured(rule | {"effort": "fast"})])
    said = [b"fluxconv.effort" in part.files[0].header for part in planned.components]
    assert said == [True, False]  # the text encoder has no type that is searched for
    assert get_backend("gguf-q4_0").configured(idle).label == "gguf-q4_0-unbiased"


def test_a_setting_that_no_backend_heeds_is_refused(
    vectors: Vectors, written: Callable[..., Path]
) -> None:
    names = ("gguf-q8_0", "gguf-f16")
    with pytest.raises(UsageError, match="gguf-q8_0: --effort changes no byte of its files"):
        chosen_backends(names, (), (), (), effort="fast")
    with pytest.raises(UsageError, match="gguf-q8_0: --importance changes no byte"):
        chosen_backends(names, (), (), (), importance=written(vectors))
    with pytest.raises(UsageError, match="gguf-q8_0: --option unbiased changes no byte"):
        chosen_backends(names, ("unbiased=true",), (), ())
    chosen_backends(names, (), (), (), effort="best")


def test_a_backends_name_in_capitals_is_nearly_right() -> None:
    with pytest.raises(UsageError, match=r"did you mean gguf-q4_k_m\?$"):
        get_backend("GGUF-Q4_K_M")


@pytest.fixture
def vectors(tiny_checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """A value for each input channel of every linear layer in the tiny transformer's blocks."""
    generator = torch.Generator().manual_seed(0)
    component = tiny_checkpoint.components["transformer"]
    return {
        spec.module: torch.rand(spec.shape[1], generator=generator) ** 4
        for spec in component.architecture.specs(component.config)
        if spec.kind == "linear" and "blocks" in spec.module
    }


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Vectors, str], Path]:
    """Writes an importance file of that name."""

    def write(vectors: Vectors, name: str = "importance.safetensors") -> Path:
        save_file(dict(vectors), tmp_path / name, metadata={"format": "fluxconv importance 1"})
        return tmp_path / name

    return write


def test_an_importance_file_is_known_by_its_content(
    vectors: Vectors, written: Callable[..., Path]
) -> None:
    backend = get_backend("gguf-q4_k_m")
    file = written(vectors)
    first = backend.configured({"importance": file})
    assert first == backend.configured({"importance": str(written(vectors, "elsewhere"))})
    assert first.label == "gguf-q4_k_m-importance"
    both = backend.configured({"effort": "fast", "importance": file})
    assert both.label == "gguf-q4_k_m-fast-importance"
    recorded = first.options.changed()["importance"]
    assert set(recorded) == {"sha256", "entries"} and recorded["entries"] == len(vectors)
    written({name: vector + 1 for name, vector in vectors.items()})
    assert first != backend.configured({"importance": file})


def test_channels_are_weighed_by_the_file(
    vectors: dict[str, torch.Tensor],
    written: Callable[..., Path],
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    """Those of a fused weight by the mean of its parts. The file is read once, before any work."""
    vectors = {n: v for n, v in vectors.items() if n != "single_transformer_blocks.1.proj_mlp"}
    file = written(vectors)
    settings = {"effort": "fast", "importance": file}
    backend = get_backend("gguf-q4_k_s").configured(settings)
    file.unlink()
    (made,) = quantize(tiny_checkpoint, [backend], tmp_path / "out", components=TRANSFORMER)
    assert made.name == "tiny-flux-gguf-q4_k_s-fast-importance"
    assert made.backend == backend
    source = dict(tiny_checkpoint.components["transformer"].weights())
    block = "single_transformer_blocks.1"
    parts = [f"{block}.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    fused = torch.cat([source[f"{part}.weight"] for part in parts])
    mean = torch.stack([vectors[part] for part in parts[:3]]).mean(0)
    found = {
        entry.name: entry
        for entry in read_entries(made.root / "tiny-flux-Q4_K_S-fast-importance.gguf")
    }["single_blocks.1.linear1.weight"].read()
    assert torch.equal(found, encode(fused, "Q4_K", mean, "fast").flatten())
    assert not torch.equal(found, encode(fused, "Q4_K", None, "fast").flatten())


def test_the_same_importance_converges_and_another_does_not(
    vectors: Vectors, written: Callable[..., Path], tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def make(file: Path) -> str:
        backend = get_backend("gguf-q4_0").configured({"effort": "fast", "importance": file})
        (made,) = quantize(tiny_checkpoint, [backend], tmp_path / "out", components=TRANSFORMER)
        return made.manifest.to_json()

    first = make(written(vectors))
    assert str(tmp_path) not in first
    assert make(written(vectors, "elsewhere")) == first
    with pytest.raises(OutputExists, match="exists, and its options differ"):
        make(written({name: vector + 1 for name, vector in vectors.items()}))


def test_llama_cpps_imatrix_is_found_by_gguf_names(
    vectors: Vectors, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    name = "double_blocks.0.img_attn.qkv.weight"
    writer = gguf.GGUFWriter(tmp_path / "imatrix.gguf", "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["none"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 1)
    sums = vectors["transformer_blocks.0.attn.to_q"]
    writer.add_tensor(f"{name}.in_sum2", sums[None].numpy())
    writer.add_tensor(f"{name}.counts", torch.full((1, 1), 2.0).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    backend = get_backend("gguf-q4_k_s").configured({"importance": tmp_path / "imatrix.gguf"})
    (planned,) = plan(tiny_checkpoint, [backend], TRANSFORMER)
    targets = {tensor.name: tensor.target for tensor in planned.tensors}
    known = backend.options.importance
    assert torch.equal(known.of(targets[name]), sums / 2)
    assert known.of(targets["double_blocks.1.img_attn.qkv.weight"]) is None


class _Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_what_an_importance_file_lacks_is_told_in_one_note(
    vectors: dict[str, torch.Tensor],
    written: Callable[..., Path],
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    whole = get_backend("gguf-q4_k_s").configured({"importance": written(vectors)})
    (planned,) = plan(tiny_checkpoint, [whole], TRANSFORMER)
    assert planned.remark is None
    (both,) = plan(tiny_checkpoint, [whole])  # T5's embedding has no input channels
    assert (both.remark or "").startswith("14 of 41 quantized tensors")
    wanted = sum(tensor.quantized for tensor in planned.tensors)
    del vectors["transformer_blocks.1.ff.net.2"]
    file = written(vectors, "less.safetensors")
    less = get_backend("gguf-q4_k_s").configured({"effort": "fast", "importance": file})
    (planned,) = plan(tiny_checkpoint, [less], TRANSFORMER)
    said = (
        f"1 of {wanted} quantized tensors have no importance in {file}, "
        "'double_blocks.1.img_mlp.2.weight' first"
    )
    assert planned.remark == said
    notes = _Notes()
    out = tmp_path / "out"
    quantize(tiny_checkpoint, [less], out, components=TRANSFORMER, progress=notes)
    assert notes.notes == [f"tiny-flux-gguf-q4_k_s-fast-importance: {said}"]


def test_importance_that_was_measured_on_another_checkpoint_is_told(
    vectors: dict[str, torch.Tensor], tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """By name alone: a copy on this machine has lost its owner's."""
    file = tmp_path / "importance.safetensors"
    said = f"{file} was measured on somebody/other-flux, and this is tiny-flux"
    for source, remark in (("somebody/Tiny-Flux", None), ("somebody/other-flux", said)):
        save_file(vectors, file, {"format": "fluxconv importance 1", "source": source})
        backend = get_backend("gguf-q4_k_s").configured({"importance": file})
        (planned,) = plan(tiny_checkpoint, [backend], TRANSFORMER)
        assert planned.remark == remark
        vectors = {name: vector + 1 for name, vector in vectors.items()}


def test_an_importance_file_of_another_model_is_refused(
    vectors: dict[str, torch.Tensor], written: Callable[..., Path], tiny_checkpoint: Checkpoint
) -> None:
    def refusal(file: Path) -> str:
        backend = get_backend("gguf-q4_k_s").configured({"importance": file})
        with pytest.raises(BadInput) as caught:
            plan(tiny_checkpoint, [backend], TRANSFORMER)
        return str(caught.value)

    others = {f"model.layers.{i}.mlp": torch.ones(4) for i in range(5)}
    said = refusal(written(others, "others"))
    assert "has none of the" in said and "it has 5 others, such as model.layers.0.mlp" in said
    vectors["transformer_blocks.0.attn.to_k"] = torch.ones(128)
    said = refusal(written(vectors, "short"))
    assert (
        "has 128 values for 'transformer_blocks.0.attn.to_k' where "
        "'double_blocks.0.img_attn.qkv.weight' has 256 columns"
    ) in said
    short = get_backend("gguf-q4_k_s").configured(
        {"importance": {"sha256": "0" * 64, "entries": 1}}
    )
    with pytest.raises(BadInput, match="only its hash is known here; give its path"):
        plan(tiny_checkpoint, [short], TRANSFORMER)


def test_an_unreadable_importance_file_is_told_before_any_work(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "garbled").write_bytes(b"no importance" * 99)
    for name, said in (("gone", "no such file"), ("garbled", "is no importance file")):
        words = ("--backend", "gguf-q4_0", "--importance", tmp_path / name)
        done = fluxconv("quantize", tiny_checkpoint.root, *words, "-o", tmp_path / "out")
        assert done.returncode == 3
        assert f"{tmp_path / name}: {said}" in done.stderr.replace("\n", " ")
        assert not (tmp_path / "out").exists()
