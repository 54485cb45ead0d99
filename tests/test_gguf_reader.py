"""Our GGUF reader: the same tensors as gguf-py finds, and no crash on garbage."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from fluxconv.converters import Variant
from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.gguf.reader import read_gguf_header


@pytest.fixture
def file(tiny_variants: dict[str, Variant]) -> Path:
    return tiny_variants["gguf-q8_0"].root / "tiny-flux-text_encoder_2-Q8_0.gguf"


def test_lists_what_gguf_py_lists(file: Path) -> None:
    import gguf

    theirs = gguf.GGUFReader(file)
    ours = read_gguf_header(file)
    assert [(t.name, t.type_name, t.shape, t.offset, t.nbytes) for t in ours.tensors] == [
        (
            t.name,
            t.tensor_type.name,
            tuple(int(n) for n in reversed(t.shape)),
            int(t.data_offset),
            int(t.n_bytes),
        )
        for t in theirs.tensors
    ]
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF.") and not isinstance(field.contents(), list):
            assert ours.metadata[key] == field.contents(), key
    assert ours.metadata["general.architecture"] == "t5encoder"
    tokens = ours.metadata["tokenizer.ggml.tokens"]
    assert tokens == len(theirs.fields["tokenizer.ggml.tokens"].data)


@pytest.mark.parametrize(
    ("at", "raw", "words"),
    [
        (0, b"GGML", "is not a GGUF file"),
        (4, struct.pack("<I", 99), "version 99"),
        (8, struct.pack("<Q", 2**60), "more entries"),
        (16, struct.pack("<Q", 2**63), "more entries"),
        (24, struct.pack("<Q", 2**40), "text of"),
    ],
)
def test_impossible_headers_are_refused(
    at: int, raw: bytes, words: str, file: Path, tmp_path: Path
) -> None:
    data = bytearray(file.read_bytes())
    data[at : at + len(raw)] = raw
    (tmp_path / "bad.gguf").write_bytes(data)
    with pytest.raises(MalformedFile, match=words):
        read_gguf_header(tmp_path / "bad.gguf")


def test_truncated_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    rng = random.Random(0)
    for cut in [0, 1, 23, 24, *(rng.randrange(len(data)) for _ in range(60)), len(data) - 1]:
        (tmp_path / "cut.gguf").write_bytes(data[:cut])
        with pytest.raises(MalformedFile):
            read_gguf_header(tmp_path / "cut.gguf")


def test_garbled_anywhere_is_read_or_refused(file: Path, tmp_path: Path) -> None:
    """A fixed sample of mutations: never another error, never a place outside the file."""
    data = file.read_bytes()
    head = data[: read_gguf_header(file).tensors[0].offset]
    # Most of the header is the tokenizer's one long array; garble its two ends.
    places = [*range(2000), *range(len(head) - 2000, len(head))]
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        garbled = bytearray(data)
        for _ in range(rng.choice((1, 1, 4))):
            garbled[rng.choice(places)] = rng.randrange(256)
        (tmp_path / "garbled.gguf").write_bytes(garbled)
        try:
            header = read_gguf_header(tmp_path / "garbled.gguf")
        except MalformedFile:
            refused += 1
        else:
            assert all(t.offset + t.nbytes <= len(data) for t in header.tensors)
    assert refused > 50


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(MalformedFile, match="not a regular file"):
        read_gguf_header(tmp_path / "pipe.gguf")
