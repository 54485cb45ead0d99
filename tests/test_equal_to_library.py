"""The streamed files are the ones the libraries themselves would have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxconv.converters import Checkpoint, Variant, plan
from fluxconv.converters.safetensors_header import read_header
from fluxconv.converters.stored import decode_component, read_entries


def _library_saves(kind: str, checkpoint: Checkpoint, component: str, place: Path) -> None:
    """`from_pretrained(quantization_config=...)` and `save_pretrained`, and nothing else."""
    import diffusers
    import transformers
    from torchao.quantization import Int8WeightOnlyConfig

    library: Any = diffusers if component == "transformer" else transformers
    config = {
        "torchao-int8": lambda: library.TorchAoConfig(Int8WeightOnlyConfig()),
        "bnb-nf4": lambda: library.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    }[kind]()
    cls = checkpoint.components[component].architecture.class_name
    model = getattr(library, cls).from_pretrained(
        checkpoint.root, subfolder=component, dtype=torch.bfloat16, quantization_config=config
    )
    model.save_pretrained(place)


needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="diffusers quantizes with bitsandbytes only on a GPU"
)


@pytest.mark.parametrize(
    ("backend", "component"),
    [
        ("torchao-int8", "transformer"),
        ("torchao-int8", "text_encoder_2"),
        ("bnb-nf4", "text_encoder_2"),
        pytest.param("bnb-nf4", "transformer", marks=needs_gpu),
    ],
)
def test_files_equal_save_pretrained(
    backend: str,
    component: str,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path: Path,
) -> None:
    _library_saves(backend, tiny_checkpoint, component, tmp_path)
    ours = tiny_variants[backend].root / component
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in tmp_path.iterdir())

    theirs_config = json.loads((tmp_path / "config.json").read_text())
    # diffusers records the folder of this machine that the source was read from; we do not.
    theirs_config.pop("_name_or_path", None)
    assert json.loads((ours / "config.json").read_text()) == theirs_config

    for file in tmp_path.glob("*.safetensors"):
        want, have = read_header(file), read_header(ours / file.name)
        assert have.metadata == want.metadata
        assert [(t.name, t.dtype, t.shape, t.offset) for t in have.tensors] == [
            (t.name, t.dtype, t.shape, t.offset) for t in want.tensors
        ]
        data = (ours / file.name).read_bytes()[have.data_start :]
        assert data == file.read_bytes()[want.data_start :]


def test_bnb_transformer_equals_linear4bit_state(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    """Without a GPU diffusers refuses, but the layer that it would put in place does not."""
    import bitsandbytes as bnb
    from safetensors.torch import load_file

    source = load_file(
        tiny_checkpoint.components["transformer"].path / "diffusion_pytorch_model.safetensors"
    )
    ours = load_file(
        tiny_variants["bnb-nf4"].root / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    compared = 0
    for name, weight in source.items():
        if weight.dim() != 2:
            assert torch.equal(ours[name], weight)
            continue
        rows, columns = weight.shape
        layer = bnb.nn.Linear4bit(
            columns, rows, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
        )
        layer.weight = bnb.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", module=layer, compress_statistics=False
        )
        state = layer.to("cpu").state_dict()
        for key, value in state.items():
            assert torch.equal(ours[name.removesuffix("weight") + key], value), (name, key)
            compared += 1
    assert compared == 50 * 4


def test_gguf_reader_lists_the_plan(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    import gguf

    variant = tiny_variants["gguf-q8_0"]
    (planned,) = plan(tiny_checkpoint, ["gguf-q8_0"])
    for component in planned.components:
        reader = gguf.GGUFReader(variant.root / component.files[0].name)
        found = {
            t.name: (t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)), int(t.n_bytes))
            for t in reader.tensors
        }
        stored = [s for t in component.tensors for s in t.stored]
        assert found == {s.name: (s.dtype, s.shape, s.nbytes) for s in stored}
        fields = {name: field.contents() for name, field in reader.fields.items()}
        assert fields["general.architecture"] == component.architecture.gguf
        assert fields["general.quantization_version"] == 2
        assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0


def test_gguf_blocks_equal_gguf_py(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    """One fused weight, q over k over v, against gguf-py encoding the concatenation whole."""
    import gguf
    from safetensors.torch import load_file

    source = load_file(
        tiny_checkpoint.components["transformer"].path / "diffusion_pytorch_model.safetensors"
    )
    block = "single_transformer_blocks.1"
    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    fused = torch.cat([source[f"{block}.{part}.weight"] for part in parts]).float().numpy()
    want = gguf.quants.quantize(fused, gguf.GGMLQuantizationType.Q8_0)
    file = tiny_variants["gguf-q8_0"].root / "tiny-flux-Q8_0.gguf"
    entry = {e.name: e for e in read_entries(file)}["single_blocks.1.linear1.weight"]
    assert entry.read().numpy().tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("backend", "largest_error"), [("bnb-nf4", 0.2), ("torchao-int8", 0.02), ("gguf-q8_0", 0.01)]
)
def test_every_weight_decodes_to_its_source(
    backend: str,
    largest_error: float,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
) -> None:
    """Also under its own name: a swapped q and k is off by about 1.4, a wrong scale by its error.

    The worst tensor of nf4 is `x_embedder`, with rows of 16 and a few large weights, at 0.139.
    """
    variant = tiny_variants[backend]
    for name, component_plan in variant.component_plans().items():
        component = tiny_checkpoint.components[name]
        seen = set()
        for tensor, weight in decode_component(variant.root, component_plan):
            from fluxconv.converters.reader import read_tensor

            source = read_tensor(component.tensors[tensor]).float()
            error = (weight.float() - source).norm() / source.norm().clamp_min(1e-12)
            assert float(error) <= largest_error, tensor
            seen.add(tensor)
        assert seen == set(component.tensors)
