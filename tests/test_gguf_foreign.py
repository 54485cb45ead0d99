"""GGUF files of other tools are sources, with the weights that gguf-py has for them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import gguf
import pytest
import synthetic
import torch
from gguf_files import DECODED, PREFIX, Types, blocks, decoded, flux_types, write
from safetensors.torch import load_file
from single_files import Tensors, transformer_of
from validating import failed_weights

from fluxconv.commands.main import run
from fluxconv.converters import Checkpoint, open_checkpoint, quantize
from fluxconv.converters.dequantization import dequantize_file
from fluxconv.converters.errors import NotACheckpoint
from fluxconv.converters.gguf.reader import read_gguf_header
from fluxconv.converters.gguf.stored_types import STORED_TYPES, UNDECODED, decode_stored

# Types -------------------------------------------------------------------------------------------


def test_types_have_the_sizes_of_gguf_py() -> None:
    sizes = {kind.value: (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    ours = {number: (t.name, t.weights, t.nbytes) for number, t in STORED_TYPES.items()}
    assert sizes.pop(9) == ("Q8_1", 32, 40)  # wrong there: two fp16 numbers and 32 bytes
    assert ours.pop(9) == ("Q8_1", 32, 36)
    assert ours == sizes


def test_what_cannot_be_decoded_is_known() -> None:
    refused = set()
    for kind, (_, nbytes) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.quants.dequantize(torch.zeros(1, nbytes, dtype=torch.uint8).numpy(), kind)
        except NotImplementedError:
            refused.add(kind.name)
    assert refused == UNDECODED
    assert {t.name for t in STORED_TYPES.values()} - UNDECODED == set(DECODED)


@pytest.mark.parametrize("type_name", DECODED)
def test_every_type_is_decoded_as_by_gguf_py(type_name: str, tmp_path: Path) -> None:
    shape = (3, 512)
    wanted = write(tmp_path / "x.gguf", {"x": (type_name, shape)})["x"]
    (tensor,) = read_gguf_header(tmp_path / "x.gguf").tensors
    raw = (tmp_path / "x.gguf").read_bytes()[tensor.offset :][: tensor.nbytes]
    found = decode_stored(torch.frombuffer(bytearray(raw), dtype=torch.uint8), type_name, shape)
    assert wanted.isfinite().all() and wanted.abs().sum() > 0
    assert torch.equal(found, wanted)


def test_decoding_in_pieces_is_decoding_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = blocks("Q4_K", (7, 256))
    wanted = decoded("Q4_K", (7, 256), raw)
    monkeypatch.setattr("fluxconv.converters.gguf.stored_types._PIECE", 3 * 256)
    flat = torch.from_numpy(raw.reshape(-1))
    assert torch.equal(decode_stored(flat, "Q4_K", (7, 256)), wanted)
    nothing = torch.empty(0, dtype=torch.uint8)
    assert decode_stored(nothing, "Q4_K", (0, 256)).shape == (0, 256)


# Transformers ------------------------------------------------------------------------------------


def unpacked(tensors: Tensors, root: Path, prefix: str = "") -> Tensors:
    """Fused weights under diffusers' names, by the tests' own table."""
    like = transformer_of(root)
    found = {
        name: torch.zeros(weight.numel(), dtype=torch.bfloat16) for name, weight in like.items()
    }
    for entry in synthetic.bfl_entries({n: tuple(w.shape) for n, w in like.items()}, prefix):
        flat, at = tensors[entry.name].reshape(-1), 0
        for piece in entry.pieces:
            count = piece.stop - piece.start
            found[piece.name][piece.start : piece.stop] = flat[at : at + count]
            at += count
    return {name: weight.reshape(like[name].shape) for name, weight in found.items()}


def same(found: Iterable[tuple[str, torch.Tensor]], wanted: Tensors) -> None:
    got = dict(found)
    assert got.keys() == wanted.keys()
    for name, weight in got.items():
        assert weight.dtype == torch.bfloat16, name
        assert torch.equal(weight, wanted[name]), name


@pytest.mark.parametrize("architecture", ["flux", None])
@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_a_transformer_of_k_quants_is_read(
    prefix: str, architecture: str | None, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    root, file = tiny_checkpoint.root, tmp_path / "some-Q4_K_M.gguf"
    fused = write(file, flux_types(root, prefix, img_in="BF16"), architecture)
    opened = open_checkpoint(file, base=root, allow_requantize=True)
    same(opened.components["transformer"].weights(), unpacked(fused, root, prefix))


def test_requantized_is_dequantized_and_quantized(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    root, file = tiny_checkpoint.root, tmp_path / "some-Q4_K_M.gguf"
    fused = write(
        file,
        flux_types(root),
        metadata=lambda writer: writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M),
    )
    opened = open_checkpoint(file, base=root, allow_requantize=True)
    plain = dequantize_file(opened, tmp_path / "plain")
    weights = load_file(plain / "transformer" / "diffusion_pytorch_model.safetensors")
    same(weights.items(), unpacked(fused, root))
    assert "GGUF Q4_K_M" in (plain / "README.md").read_text()

    (made,) = quantize(opened, ["gguf-q8_0"], tmp_path / "made", components=("transformer",))
    (want,) = quantize(
        open_checkpoint(plain), ["gguf-q8_0"], tmp_path / "want", components=("transformer",)
    )
    assert made.manifest.source.requantized == "GGUF Q4_K_M"
    assert made.manifest.source.files.keys() >= {"some-Q4_K_M.gguf", "transformer/config.json"}
    ours, theirs = (next(each.root.glob("*-Q8_0.gguf")) for each in (made, want))
    tensors = [
        {t.name: file.read_bytes()[t.offset :][: t.nbytes] for t in read_gguf_header(file).tensors}
        for file in (ours, theirs)
    ]
    assert tensors[0] == tensors[1]
    assert failed_weights(made, opened) == []


def test_plain_weights_need_no_leave(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Nothing was lost in a file of BF16, F16 and F32."""
    root, file = tiny_checkpoint.root, tmp_path / "some-F16.gguf"
    types = {name: ("F16" if len(s) > 1 else "F32", s) for name, (_, s) in flux_types(root).items()}
    fused = write(file, types)
    opened = open_checkpoint(file, base=root)
    assert opened.requantized is None
    same(opened.components["transformer"].weights(), unpacked(fused, root))


# Text encoders -----------------------------------------------------------------------------------


def t5_types() -> Types:
    found: Types = {"token_embd.weight": ("Q6_K", (896, 256))}
    for i in range(2):
        layer = f"enc.blk.{i}"
        for part in "qkvo":
            found[f"{layer}.attn_{part}.weight"] = ("Q4_K", (256, 256))
        found[f"{layer}.ffn_gate.weight"] = ("Q5_K", (512, 256))
        found[f"{layer}.ffn_up.weight"] = ("Q3_K", (512, 256))
        found[f"{layer}.ffn_down.weight"] = ("Q6_K", (256, 512))
        found[f"{layer}.attn_norm.weight"] = ("F32", (256,))
        found[f"{layer}.ffn_norm.weight"] = ("F32", (256,))
    found["enc.blk.0.attn_rel_b.weight"] = ("F16", (32, 4))
    found["enc.output_norm.weight"] = ("F32", (256,))
    return found


DECODER: Types = {
    "dec.blk.0.attn_q.weight": ("Q4_K", (256, 256)),
    "output.weight": ("Q6_K", (896, 256)),
}


@pytest.mark.parametrize(
    ("architecture", "more"), [("t5encoder", {}), ("t5", DECODER), (None, {})], ids=str
)
def test_a_text_encoder_of_k_quants_is_read(
    architecture: str | None,
    more: Types,
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    from transformers import T5EncoderModel

    file = tmp_path / "t5-v1_1-xxl-encoder-Q4_K_M.gguf"
    epsilon = (lambda writer: writer.add_layer_norm_eps(1e-5)) if architecture else lambda _: None
    stored = write(file, t5_types() | more, architecture, epsilon)
    opened = open_checkpoint(file, allow_requantize=True)
    assert bool(opened.notes) is bool(more)
    component = opened.components["text_encoder_2"]
    theirs = tiny_checkpoint.components["text_encoder_2"].config
    for key in ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "vocab_size"):
        assert component.config[key] == theirs[key], key
    assert component.config["layer_norm_epsilon"] == (1e-5 if architecture else 1e-6)
    named = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    wanted = {name: stored[named.get_name(name, (".weight",))] for name in component.shapes}
    same(component.weights(), wanted)

    plain = dequantize_file(opened, tmp_path / "plain")
    model = T5EncoderModel.from_pretrained(plain, dtype=torch.bfloat16)
    assert torch.equal(model.encoder.embed_tokens.weight, stored["token_embd.weight"])
    assert model.config.feed_forward_proj == "gated-gelu"
    with torch.no_grad():
        assert model(torch.arange(8)[None]).last_hidden_state.isfinite().all()


# What is no source -------------------------------------------------------------------------------


def _quantized_once(file: Path, types: Types) -> None:
    write(file, types)


def _missing(file: Path, types: Types) -> None:
    del types["double_blocks.1.img_attn.norm.key_norm.scale"]
    write(file, types)


def _without_landmark(file: Path, types: Types) -> None:
    del types["img_in.weight"]
    write(file, types)


def _other_shape(file: Path, types: Types) -> None:
    types["single_blocks.0.linear1.bias"] = ("F32", (5,))
    write(file, types)


def _language_model(file: Path, types: Types) -> None:
    write(file, {"token_embd.weight": ("Q4_K", (32, 256))}, "llama")


def _nothing(file: Path, types: Types) -> None:
    write(file, {})


@pytest.mark.parametrize(
    ("make", "allowed", "words"),
    [
        (_quantized_once, False, r"already quantized \(GGUF [^)]*Q4_K.*--allow-requantize"),
        (_missing, True, "1 missing tensors, such as double_blocks.1.img_attn.norm.key_norm.scale"),
        (_without_landmark, True, "lacks img_in.weight"),
        (_other_shape, True, r"'single_blocks.0.linear1.bias' has shape \[5\]"),
        (_language_model, True, "a model of the architecture 'llama'; give a FLUX.1 checkpoint"),
        (_language_model, False, "a model of the architecture 'llama'; give a FLUX.1 checkpoint"),
        (_nothing, True, "holds no tensors"),
    ],
)
def test_what_is_no_source_is_said(
    make: Callable[[Path, Types], None],
    allowed: bool,
    words: str,
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    root = tiny_checkpoint.root
    make(tmp_path / "x.gguf", flux_types(root))
    with pytest.raises(NotACheckpoint, match=words) as caught:
        open_checkpoint(tmp_path / "x.gguf", base=root, allow_requantize=allowed)
    assert "\n" not in str(caught.value)


def test_a_type_that_nobody_decodes_is_refused(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    root, file = tiny_checkpoint.root, tmp_path / "x.gguf"
    write(file, flux_types(root))
    raw = bytearray(file.read_bytes())
    # Q8_K has more bytes than any other, so put it where the last tensor is.
    last = read_gguf_header(file).tensors[-1]
    name = last.name.encode()
    at = raw.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    (rank,) = struct.unpack_from("<I", raw, at)
    struct.pack_into("<I", raw, at + 4 + 8 * rank, 28)  # F64
    file.write_bytes(raw + bytes(8 * last.nbytes))
    with pytest.raises(NotACheckpoint, match=f"'{last.name}' is F64, which gguf-py cannot decode"):
        open_checkpoint(file, base=root, allow_requantize=True)


# On the command line -----------------------------------------------------------------------------


def _whole(tmp_path: Path) -> bytes:
    write(tmp_path / "whole.gguf", {"img_in.weight": ("Q4_K", (64, 256))})
    return (tmp_path / "whole.gguf").read_bytes()


def _truncated(tmp_path: Path) -> bytes:
    return _whole(tmp_path)[:-100]


def _safetensors(tmp_path: Path) -> bytes:
    return struct.pack("<Q", 2) + b'{"a": 1}'


def _empty(tmp_path: Path) -> bytes:
    return b""


def _pointer(tmp_path: Path) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def _page(tmp_path: Path) -> bytes:
    return b"\n<!DOCTYPE html><html></html>"


def _big_endian(tmp_path: Path) -> bytes:
    write(tmp_path / "big.gguf", {"a": ("F32", (4,))}, endian=gguf.GGUFEndian.BIG)
    return (tmp_path / "big.gguf").read_bytes()


def _version_1(tmp_path: Path) -> bytes:
    return b"GGUF" + struct.pack("<IIIQ", 1, 0, 0, 0) + bytes(8)


def _other_type(tmp_path: Path) -> bytes:
    raw = _whole(tmp_path)
    at = raw.index(b"img_in.weight") + 13 + 4 + 16
    return raw[:at] + struct.pack("<I", 8) + raw[at + 4 :]  # Q8_0, which takes more room


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_truncated, "truncated or garbled: its header describes"),
        (_safetensors, "is not a GGUF file but a safetensors file; give it the ending"),
        (lambda _: b"GGML" + bytes(40), "is not a GGUF file; download it again"),
        (_empty, "is empty; download it again"),
        (_pointer, "a Git LFS pointer and not the file"),
        (_page, "a web page"),
        (_big_endian, "is a big-endian GGUF file; convert it"),
        (_version_1, "has GGUF version 1; fluxconv reads 2 and 3"),
        (_other_type, "truncated or garbled"),
    ],
)
def test_bad_files_get_one_sentence_whatever_is_asked(
    make: Callable[[Path], bytes],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(make(tmp_path))
    for command in (
        ["inspect", str(file)],
        ["plan", str(file), "--backend", "gguf-q8_0", "--allow-requantize"],
        ["quantize", str(file), "--backend", "gguf-q8_0", "-o", str(tmp_path / "out")],
        ["dequantize", str(file), "-o", str(tmp_path / "out")],
    ):
        assert run(command) == 3
        said = capsys.readouterr().err
        assert words in said
        assert len(said.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_not_dequantized(
    tiny_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that any reader takes may decode to NaN or infinity."""
    file = tmp_path / "some.gguf"
    write(file, flux_types(tiny_checkpoint.root))
    tensors = {tensor.name: tensor for tensor in read_gguf_header(file).tensors}
    harmed = tensors["double_blocks.0.img_mlp.0.weight"]
    with file.open("r+b") as stream:
        stream.seek(harmed.offset)
        stream.write(b"\xff" * harmed.nbytes)
    words = ["dequantize", str(file), "--base", str(tiny_checkpoint.root)]
    assert run([*words, "-o", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert "'transformer_blocks.0.ff.net.0.proj.weight' decodes to NaN or infinity" in said
    assert list(tmp_path.iterdir()) == [file]


def test_dequantize_takes_a_file(
    tiny_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.gguf"
    fused = write(file, flux_types(tiny_checkpoint.root))
    words = ["dequantize", str(file), "--base", str(tiny_checkpoint.root)]
    assert run([*words, "-o", str(tmp_path / "out")]) == 0
    opened = open_checkpoint(tmp_path / "out")
    assert opened.components.keys() == tiny_checkpoint.components.keys()
    same(opened.components["transformer"].weights(), unpacked(fused, tiny_checkpoint.root))
    capsys.readouterr()
    assert run(["dequantize", str(file), "-o", str(tmp_path / "alone")]) == 3
    assert "heads of width 64" in capsys.readouterr().err
