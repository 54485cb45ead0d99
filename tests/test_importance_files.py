"""Importance files, ours and llama.cpp's, read as their writers meant them; garbage is refused."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fluxconv.converters.errors import CheckpointNotFound, FluxconvError, MalformedFile
from fluxconv.converters.importance import importance_digest, read_importance

NAME = "double_blocks.0.img_attn.qkv.weight"
#: What `quantize.cpp` requires of an imatrix, beside its tensors.
METADATA: Mapping[str, Any] = {
    "general.type": "imatrix",
    "imatrix.datasets": ["calibration.txt"],
    "imatrix.chunk_count": 3,
    "imatrix.chunk_size": 512,
}
Tensors = Mapping[str, np.ndarray[Any, Any]]


def write_imatrix(file: Path, tensors: Tensors, metadata: Mapping[str, Any] = METADATA) -> Path:
    """As llama.cpp's `imatrix.cpp` writes it: no architecture, sums and counts in F32."""
    writer = gguf.GGUFWriter(file, arch="")
    writer.kv_data[0].clear()  # gguf-py's own general.architecture; llama.cpp writes none
    for key, value in metadata.items():
        match value:
            case str():
                writer.add_string(key, value)
            case int():
                writer.add_uint32(key, value)
            case _:
                writer.add_array(key, value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def pair(sums: object, counts: object, name: str = NAME) -> Tensors:
    """The two tensors of one weight: (matrices, columns) and (matrices, 1)."""
    return {
        f"{name}.in_sum2": np.array(sums, np.float32),
        f"{name}.counts": np.array(counts, np.float32),
    }


def legacy(entries: Mapping[str, tuple[int, list[float]]], tail: bytes = b"") -> bytes:
    """As `save_imatrix_legacy` writes it: means times calls."""
    found = struct.pack("<i", len(entries))
    for name, (calls, means) in entries.items():
        raw = name.encode()
        values = [mean * max(calls, 1) for mean in means]
        found += struct.pack("<i", len(raw)) + raw + struct.pack("<ii", calls, len(values))
        found += struct.pack(f"<{len(values)}f", *values)
    return found + tail


def own(
    file: Path, vectors: dict[str, torch.Tensor], format: str = "fluxconv importance 1"
) -> Path:
    save_file(vectors, file, {"format": format})
    return file


# Read as it was meant ----------------------------------------------------------------------------


def test_imatrix_is_sums_over_counts_under_the_weights_name(tmp_path: Path) -> None:
    tensors = {**pair([[8, 2, 0]], [[4]]), **pair([[3]], [[2]], "enc.blk.0.attn_q.weight")}
    found = read_importance(write_imatrix(tmp_path / "imatrix.gguf", tensors))
    assert set(found) == {"double_blocks.0.img_attn.qkv", "enc.blk.0.attn_q"}
    vector = found["double_blocks.0.img_attn.qkv"]
    assert vector.dtype == torch.float32
    assert vector.tolist() == [2.0, 0.5, 0.0]
    assert found["enc.blk.0.attn_q"].tolist() == [1.5]


def test_experts_have_counts_of_their_own_and_unseen_ones_count_all_alike(tmp_path: Path) -> None:
    tensors = pair([[8, 2], [5, 7], [6, 3]], [[2], [0], [3]])
    found = read_importance(write_imatrix(tmp_path / "imatrix.gguf", tensors))
    assert found["double_blocks.0.img_attn.qkv"].tolist() == [4, 1, 1, 1, 2, 1]


@pytest.mark.parametrize("tail", [b"", struct.pack("<ii", 3, 4) + b"text"])
def test_legacy_imatrix_is_read_with_and_without_its_tail(tail: bytes, tmp_path: Path) -> None:
    file = tmp_path / "imatrix.dat"
    file.write_bytes(legacy({NAME: (7, [2.0, 0.5, 0.0]), "b": (0, [3.0])}, tail))
    found = read_importance(file)
    assert list(found) == ["double_blocks.0.img_attn.qkv", "b"]
    torch.testing.assert_close(found[NAME.removesuffix(".weight")], torch.tensor([2.0, 0.5, 0.0]))
    assert found["b"].tolist() == [3.0]


def test_ours_is_read_back_and_its_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    vectors = {"transformer_blocks.0.attn.to_q": torch.rand(64), "context_embedder": torch.rand(5)}
    file = own(tmp_path / "i.safetensors", vectors)
    found = read_importance(file)
    assert found.keys() == vectors.keys()
    assert all(found[name].equal(vector) for name, vector in vectors.items())
    assert importance_digest(file) == hashlib.sha256(file.read_bytes()).hexdigest()


# Refused, in one sentence ------------------------------------------------------------------------


def refused(file: Path, words: str, kind: type[FluxconvError] = MalformedFile) -> None:
    with pytest.raises(kind, match=words) as caught:
        read_importance(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (pair([[1, 2]], [[np.nan]]), "counts no tokens"),
        (pair([[1, 2]], [[-1]]), "counts no tokens"),
        (pair([[1, 2, 3]], [[1], [1]]), "cannot share"),
        (pair([[1, np.inf]], [[1]]), "NaN, infinity or a negative"),
        (pair([[1, np.nan]], [[1]]), "NaN, infinity or a negative"),
        (pair([[1, -2]], [[1]]), "NaN, infinity or a negative"),
        ({f"{NAME}.in_sum2": np.ones((1, 2), np.float32)}, "lacks 'double_blocks.*counts'"),
        ({f"{NAME}.counts": np.ones((1, 1), np.float32)}, "lacks 'double_blocks.*in_sum2'"),
        ({**pair([[1]], [[1]], "a"), **pair([[1]], [[1]], "a.weight")}, "has 'a' twice"),
        (pair([[1]], [[1]], ".weight"), "impossible name"),
        ({"other": np.ones(2, np.float32)}, "no layer"),
        ({k: v.astype(np.float16) for k, v in pair([[1]], [[1]]).items()}, "is F16, not F32"),
    ],
)
def test_impossible_imatrix_is_refused(tensors: Tensors, words: str, tmp_path: Path) -> None:
    refused(write_imatrix(tmp_path / "imatrix.gguf", tensors), words)


def test_gguf_that_is_no_imatrix_is_refused(tmp_path: Path) -> None:
    good = pair([[1]], [[1]])
    model = {**METADATA, "general.type": "model"}
    refused(write_imatrix(tmp_path / "a.gguf", good, model), "is a model, not an imatrix")
    for key in list(METADATA)[1:]:
        rest = {other: value for other, value in METADATA.items() if other != key}
        refused(write_imatrix(tmp_path / "b.gguf", good, rest), f"lacks '{key}'")


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ({"a": torch.tensor([1.0, torch.nan])}, "NaN, infinity or a negative"),
        ({"a": torch.tensor([1.0, torch.inf])}, "NaN, infinity or a negative"),
        ({"a": torch.tensor([-1.0])}, "NaN, infinity or a negative"),
        ({"a": torch.ones(2, 2)}, "must have one dimension"),
        ({"a": torch.ones(0)}, "must have one dimension"),
        ({"a": torch.ones(2, dtype=torch.float16)}, "is F16, not F32"),
        ({"a": torch.ones(2), "a.weight": torch.ones(2)}, "has 'a' twice"),
        ({}, "no layer"),
    ],
)
def test_impossible_values_of_ours_are_refused(
    vectors: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    refused(own(tmp_path / "i.safetensors", vectors), words)


def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    refused(own(tmp_path / "a", {"a": torch.ones(2)}, "pt"), "its format is 'pt'")
    refused(own(tmp_path / "b", {"a": torch.ones(2)}, "fluxconv importance 2"), "importance 2")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such file", CheckpointNotFound)
    refused(tmp_path, "is not a regular file")
    with pytest.raises(CheckpointNotFound, match="no such file"):
        importance_digest(tmp_path / "none")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"prompt one\nprompt two\n",
        struct.pack("<i", -1),
        struct.pack("<ii", 1, -5),
        struct.pack("<ii", 1, 2**31 - 1),
        struct.pack("<ii", 1, 2) + b"\xff\xff" + struct.pack("<iif", 1, 1, 1.0),
        struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 2**31 - 1),
        struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 0),
        legacy({"a": (1, [1.0]), "b": (1, [1.0])})[:-1],
    ],
)
def test_garbage_is_refused_without_reading_what_it_claims(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    refused(file, "is no importance file, neither fluxconv's nor an imatrix")


@pytest.mark.parametrize("kind", ["ours", "imatrix", "legacy"])
def test_damaged_files_never_crash_the_reader(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    writers: dict[str, Callable[[], object]] = {
        "ours": lambda: own(file, {"a": torch.rand(8), "b": torch.rand(8)}),
        "imatrix": lambda: write_imatrix(file, pair([[1, 2, 3, 4]], [[2]])),
        "legacy": lambda: file.write_bytes(legacy({"a": (2, [1.0] * 8), "b": (1, [2.0] * 8)})),
    }
    writers[kind]()
    good, chance, refusals = file.read_bytes(), random.Random(0), 0
    for _ in range(400):
        data = bytearray(good[: chance.choice([len(good), chance.randrange(len(good))])])
        for _ in range(chance.randrange(1, 4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        file.write_bytes(data)
        try:
            found = read_importance(file)
        except FluxconvError:
            refusals += 1
        else:
            assert all(bool((vector >= 0).all()) for vector in found.values())
    assert refusals > 100
