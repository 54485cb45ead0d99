"""What the programs that open GGUF files ask of them, held over ours of every type.

diffusers is asked itself. The others cannot be installed here: their rules are written down from
their sources, each beside the name of the file that has it. `benchmarks/` asks llama.cpp
(`llama_t5.py`) and stable-diffusion.cpp (`stable_diffusion_cpp.py`) themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import bfl_entries, transformer_config, write_transformer

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.backends import all_backends, get_backend
from fluxconv.converters.backends.gguf import Gguf
from fluxconv.converters.gguf.reader import read_gguf_header
from fluxconv.converters.gguf.types import TYPES

BACKENDS = [name for name, each in all_backends().items() if isinstance(each, Gguf)]
FLOATS = {"F32", "F16"}
LONGEST_NAME = 63  # ggml's GGML_MAX_NAME holds a closing zero too


def _file(variant: Variant, component: str) -> Path:
    return variant.root / variant.component_plans()[component].files[0].name


@cache
def _read(file: Path) -> Any:
    """By gguf-py, which is how ComfyUI-GGUF, diffusers and transformers read."""
    import gguf

    return gguf.GGUFReader(file)


# The transformer ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers(tiny_variants: dict[str, Variant]) -> Callable[[str], Any]:
    return lambda backend: _read(_file(tiny_variants[backend], "transformer"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_transformer_has_the_names_and_shapes_of_the_original_file(
    backend: str, transformers: Callable[[str], Any], tiny_checkpoint: Checkpoint
) -> None:
    """Without a prefix, which every loader takes. gguf-py lists sizes innermost first."""
    from diffusers import FluxTransformer2DModel

    config = tiny_checkpoint.components["transformer"].config
    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config(config)
    original = bfl_entries({name: tuple(t.shape) for name, t in model.state_dict().items()})
    found = {t.name: tuple(reversed(t.shape.tolist())) for t in transformers(backend).tensors}
    assert found == {entry.name: entry.shape for entry in original}
    assert max(len(name.encode()) for name in found) <= LONGEST_NAME


@pytest.mark.parametrize("backend", BACKENDS)
def test_comfyui_takes_it_for_flux(
    backend: str, transformers: Callable[[str], Any], tiny_checkpoint: Checkpoint
) -> None:
    """ComfyUI-GGUF, `loader.py` and `dequant.py`; ComfyUI, `comfy/model_detection.py`."""
    reader = transformers(backend)
    config = tiny_checkpoint.components["transformer"].config
    assert reader.get_field("general.architecture").contents() == "flux"
    assert not [name for name in reader.fields if name.startswith("comfy.gguf.orig_shape.")]
    for tensor in reader.tensors:
        assert tensor.tensor_type.name in TYPES  # these are all that `dequant.py` has
        assert len(tensor.shape) <= 2
        if len(tensor.shape) == 1:
            assert tensor.tensor_type.name in FLOATS
    shapes = {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors}
    assert "double_blocks.0.img_attn.norm.key_norm.scale" in shapes
    assert shapes["img_in.weight"][1] == config["in_channels"]
    assert shapes["vector_in.in_layer.weight"][1] == config["pooled_projection_dim"]
    assert shapes["txt_in.weight"][1] == config["joint_attention_dim"]
    assert ("guidance_in.in_layer.weight" in shapes) == config["guidance_embeds"]
    for kind, count in (("double", config["num_layers"]), ("single", config["num_single_layers"])):
        numbers = {name.split(".")[1] for name in shapes if name.startswith(f"{kind}_blocks.")}
        assert numbers == {str(i) for i in range(count)}


# diffusers tells the models of the family apart by the input's channels and the guidance embedding.
FAMILIES = {
    "flux-dev": {},
    "flux-schnell": {"guidance": False},
    "flux-fill": {"in_channels": 384},
    "flux-depth": {"in_channels": 128},  # and Canny, which has the same shapes
}


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_never_takes_it_for_another_model(family: str, tmp_path: Path) -> None:
    """Of whatever type, and whatever types the user asks for."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from diffusers.models.model_loading_utils import load_gguf_checkpoint

    config = transformer_config(
        double=1, single=1, heads=2, joint=256, pooled=256, **FAMILIES[family]
    )
    write_transformer(tmp_path, config)
    asked = get_backend("gguf-bf16").configured({"tensor_types": (".=Q8_0",)})
    checkpoint = open_checkpoint(tmp_path / "transformer")
    for variant in quantize(checkpoint, [*BACKENDS, asked], tmp_path / "out"):
        state = load_gguf_checkpoint(str(_file(variant, "transformer")))
        assert infer_diffusers_model_type(state) == family, variant.name


@pytest.mark.parametrize("type_name", sorted(set(TYPES) - FLOATS))
def test_diffusers_decodes_every_type_as_gguf_py_does(type_name: str) -> None:
    """Within a unit of fp16's last place, in which it computes. F32 and F16 are no GGUF types to
    it, but plain tensors."""
    import gguf
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

    from fluxconv.converters.gguf import decode, encode

    weight = torch.randn(16, 3072, generator=torch.Generator().manual_seed(0)) * 0.03
    blocks = encode(weight, type_name)
    want = decode(blocks, type_name, 3072)
    parameter = GGUFParameter(blocks, quant_type=gguf.GGMLQuantizationType[type_name])
    have = dequantize_gguf_tensor(parameter).float()
    assert have.shape == want.shape
    assert float((have - want).norm() / want.norm()) < 2**-10


# T5 ----------------------------------------------------------------------------------------------

# ComfyUI-GGUF, `loader.py`: replaced in this order, wherever they stand in a name.
COMFYUI_T5 = """
enc. encoder. / .blk. .block. / token_embd shared / output_norm final_layer_norm /
attn_q layer.0.SelfAttention.q / attn_k layer.0.SelfAttention.k / attn_v layer.0.SelfAttention.v /
attn_o layer.0.SelfAttention.o / attn_norm layer.0.layer_norm /
attn_rel_b layer.0.SelfAttention.relative_attention_bias / ffn_up layer.1.DenseReluDense.wi_1 /
ffn_down layer.1.DenseReluDense.wo / ffn_gate layer.1.DenseReluDense.wi_0 /
ffn_norm layer.1.layer_norm
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_comfyui_finds_every_weight_of_t5(
    backend: str, tiny_variants: dict[str, Variant], tiny_checkpoint: Checkpoint
) -> None:
    from safetensors import safe_open

    header = read_gguf_header(_file(tiny_variants[backend], "text_encoder_2"))
    assert header.metadata["general.architecture"] in ("t5", "t5encoder")
    found = {}
    for tensor in header.tensors:
        name = tensor.name
        for pair in COMFYUI_T5.split("/"):
            name = name.replace(*pair.split())
        found[name] = tensor.shape
    folder = tiny_checkpoint.components["text_encoder_2"].path
    with safe_open(folder / "model.safetensors", "pt") as source:
        assert found == {key: tuple(source.get_slice(key).get_shape()) for key in source.keys()}  # noqa: SIM118


@pytest.mark.parametrize("backend", BACKENDS)
def test_llama_cpp_finds_every_weight_of_t5_and_no_other(
    backend: str, tiny_variants: dict[str, Variant], tiny_checkpoint: Checkpoint
) -> None:
    """llama.cpp, `models/t5encoder.cpp`: sizes innermost first; a tensor too many is an error."""
    config = tiny_checkpoint.components["text_encoder_2"].config
    width, inner = config["d_model"], config["d_ff"]
    attention = config["num_heads"] * config["d_kv"]
    wanted: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (width, config["vocab_size"]),
        "enc.output_norm.weight": (width,),
        # Of the first layer; the others share it.
        "enc.blk.0.attn_rel_b.weight": (
            config["num_heads"],
            config["relative_attention_num_buckets"],
        ),
    }
    layer = {
        "attn_norm": (width,),
        **dict.fromkeys(("attn_q", "attn_k", "attn_v"), (width, attention)),
        "attn_o": (attention, width),
        "ffn_norm": (width,),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (width, inner)),
        "ffn_down": (inner, width),
    }
    for i in range(config["num_layers"]):
        wanted |= {f"enc.blk.{i}.{name}.weight": sizes for name, sizes in layer.items()}
    header = read_gguf_header(_file(tiny_variants[backend], "text_encoder_2"))
    assert {t.name: tuple(reversed(t.shape)) for t in header.tensors} == wanted
    types = {t.name: t.type_name for t in header.tensors}
    assert all(types[name] in FLOATS for name, sizes in wanted.items() if len(sizes) == 1)
    assert types["enc.blk.0.attn_rel_b.weight"] in FLOATS


def test_llama_cpp_finds_the_keys_and_the_tokenizer_of_t5(
    tiny_variants: dict[str, Variant], tiny_checkpoint: Checkpoint
) -> None:
    """llama.cpp, `llama-model.cpp`, `models/t5encoder.cpp` and `llama-vocab.cpp`, with the types
    of values that they take."""
    from gguf import GGUFValueType as Kind
    from sentencepiece import SentencePieceProcessor

    config = tiny_checkpoint.components["text_encoder_2"].config
    fields = _read(_file(tiny_variants["gguf-q8_0"], "text_encoder_2")).fields
    numbers = {
        "context_length": config.get("n_positions", 512),
        "embedding_length": config["d_model"],
        "feed_forward_length": config["d_ff"],
        "block_count": config["num_layers"],
        "attention.head_count": config["num_heads"],
        "attention.key_length": config["d_kv"],
        "attention.value_length": config["d_kv"],
        "attention.relative_buckets_count": config["relative_attention_num_buckets"],
    }
    for name, number in numbers.items():
        field = fields[f"t5encoder.{name}"]
        assert (field.types, field.contents()) == ([Kind.UINT32], number), name
    epsilon = fields["t5encoder.attention.layer_norm_rms_epsilon"]
    assert epsilon.types == [Kind.FLOAT32]
    assert epsilon.contents() == pytest.approx(config["layer_norm_epsilon"])

    spiece = tiny_checkpoint.root / "tokenizer_2" / "spiece.model"
    tokenizer = SentencePieceProcessor(model_file=str(spiece))
    pieces = [tokenizer.id_to_piece(i) for i in range(len(tokenizer))]
    arrays = {"tokens": Kind.STRING, "scores": Kind.FLOAT32, "token_type": Kind.INT32}
    for name, kind in arrays.items():
        field = fields[f"tokenizer.ggml.{name}"]
        assert field.types == [Kind.ARRAY, kind] and len(field.data) == config["vocab_size"]
    assert fields["tokenizer.ggml.tokens"].contents()[: len(pieces)] == pieces
    assert fields["tokenizer.ggml.model"].contents() == "t5"
    for name in ("add_space_prefix", "remove_extra_whitespaces", "add_eos_token"):
        assert fields[f"tokenizer.ggml.{name}"].contents() is True
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    specials = {"eos": tokenizer.eos_id(), "unknown": tokenizer.unk_id(), "padding": 0}
    for name, number in specials.items():
        assert fields[f"tokenizer.ggml.{name}_token_id"].contents() == number
    charsmap = fields["tokenizer.ggml.precompiled_charsmap"]
    assert charsmap.types in ([Kind.ARRAY, Kind.INT8], [Kind.ARRAY, Kind.UINT8])
    size = bytes(int(charsmap.parts[i][0]) & 0xFF for i in charsmap.data[:4])
    # The size of the table, the table, then what is put in place.
    assert int.from_bytes(size, "little") + 4 < len(charsmap.data)


def test_every_type_has_a_backend_or_a_test_above() -> None:
    """A type that only `--tensor-type` makes would not be in the files here."""
    planned = {get_backend(name).type_name for name in BACKENDS}
    assert planned | {"F32"} == set(TYPES)
