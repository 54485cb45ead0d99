"""Our safetensors reader: what it refuses, with which words, and never in more than a moment."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fluxconv.converters.errors import CheckpointNotFound, MalformedFile
from fluxconv.converters.safetensors_header import MAX_HEADER_BYTES, lay_out, read_header

FUZZ = Path(__file__).parent.parent / "benchmarks" / "fuzz_safetensors.py"


def entry(dtype: str = "U8", shape: Any = (2,), offsets: Any = (0, 2)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def one(**changed: Any) -> str:
    """The header of one tensor `a` of two bytes, with changes."""
    return json.dumps({"a": entry() | changed})


def with_metadata(text: str) -> str:
    return '{"__metadata__": ' + text + ", " + one()[1:]


def write(file: Path, header: str | bytes, data: bytes = b"\0\0") -> Path:
    raw = header if isinstance(header, bytes) else header.encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return file


def refusal(file: Path) -> str:
    """The sentence with which a file is refused, without the file's name."""
    with pytest.raises(MalformedFile) as caught:
        read_header(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ")
    assert text.isprintable()
    assert len(text) < 400
    return text.removeprefix(f"{file}: ")


TWICE_INSIDE = one().replace('"shape"', '"dtype": "U8", "shape"')
MALFORMED = "tensor 'a' has a malformed header entry"
SHAPE = "tensor 'a' has an impossible shape"
OFFSETS = "tensor 'a' has impossible offsets"
NUMBER = "the header holds '{}', and its numbers must be whole and below 2**63"


FAULTS: list[tuple[str | bytes, str]] = [
    # Names that repeat, wherever they stand.
    ('{"a": 1, "\\u0061": 2}', "the header names 'a' twice"),
    (TWICE_INSIDE, "the header names 'dtype' twice"),
    (with_metadata('{"x": "", "x": ""}'), "the header names 'x' twice"),
    ('{"__metadata__": {}, "__metadata__": {}}', "the header names '__metadata__' twice"),
    # Places.
    (
        json.dumps({"a": entry(), "b": entry(offsets=(1, 3))}),
        "tensor 'b' overlaps the tensor before it",
    ),
    (
        json.dumps({"a": entry(), "b": entry(offsets=(0, 2))}),
        "tensor 'b' overlaps the tensor before it",
    ),
    (
        json.dumps({"a": entry(), "b": entry(offsets=(3, 5))}),
        "tensor 'b' leaves a gap after the tensor before it",
    ),
    (one(data_offsets=[1, 3]), "tensor 'a' leaves a gap after the tensor before it"),
    (
        json.dumps({"a": entry(), "b": entry(offsets=(2, 4))}),
        "truncated or garbled: the header describes 132 bytes and the file has 130; "
        "download it again",
    ),
    ("{}", "truncated or garbled: the header describes 10 bytes and the file has 12; "
     "download it again"),
    (one(data_offsets=[2, 0]), OFFSETS),
    (one(data_offsets=[0, True]), OFFSETS),
    (one(data_offsets=[0, "2"]), OFFSETS),
    (one(data_offsets=[0, 2, 4]), MALFORMED),
    # Sizes.
    (one(shape=[3]), "tensor 'a': its size does not match shape and dtype"),
    (one(dtype="F32"), "tensor 'a': its size does not match shape and dtype"),
    (one(shape=[1] * 9), SHAPE),
    (one(shape=[True, 2]), SHAPE),
    (one(shape=[[2]]), SHAPE),
    (one(shape=["2"]), SHAPE),
    (one(shape=[2**62, 2]), f"{SHAPE}: more than 2**63 bytes"),
    (one(shape=[2**40, 2**40, 0]), f"{SHAPE}: more than 2**63 bytes"),
    (one(shape=[0, 2**40, 2**40]), f"{SHAPE}: more than 2**63 bytes"),
    # Numbers that are none.
    (one(shape=[-2]), NUMBER.format(-2)),
    (one(shape=[2.0]), NUMBER.format(2.0)),
    (one(shape=[2**63]), NUMBER.format(2**63)),
    (one(shape=[float("nan")]), NUMBER.format("NaN")),
    (one(shape=[float("-inf")]), NUMBER.format("-Infinity")),
    (one().replace("[2]", "[-0]"), NUMBER.format("-0")),
    (one().replace("[2]", "[2e0]"), NUMBER.format("2e0")),
    (one(shape=[int("9" * 4000)]), NUMBER.format("9" * 19 + "…" + "9" * 19)),
    (one().replace("[2]", f"[{'9' * 100_000}]"), NUMBER.format("9" * 19 + "…" + "9" * 19)),
    # Entries that are none.
    ('{"a": 1}', MALFORMED),
    ('{"a": ["U8", [2], [0, 2]]}', MALFORMED),
    (one(note="x"), MALFORMED),
    (one(shape=None), MALFORMED),
    (one(dtype=None), MALFORMED),
    (one(dtype="F128"), "tensor 'a' has the unknown dtype 'F128'"),
    (one(dtype="u8"), "tensor 'a' has the unknown dtype 'u8'"),
    # Metadata.
    (with_metadata('{"x": 1}'), "the metadata must map strings to strings, and 'x' does not"),
    (with_metadata('{"x": null}'),
     "the metadata must map strings to strings, and 'x' does not"),
    (with_metadata("[]"), "the metadata is no JSON object"),
    (with_metadata("null"), "the metadata is no JSON object"),
    (with_metadata('{"x": "\\ud800"}'), "the metadata 'x' is not valid text"),
    (with_metadata('{"\\udc00": ""}'), "the metadata '\\udc00' is not valid text"),
    # Names.
    (one().replace('"a"', '""'), "the name '' of a tensor is empty or cannot be printed"),
    *(
        (
            one().replace('"a"', f'"a{escape}"'),
            f"the name 'a{shown}' of a tensor is empty or cannot be printed",
        )
        for escape, shown in (
            ("\\u0000", "\\x00"),
            ("\\n", "\\n"),
            ("\\u001b[2J", "\\x1b[2J"),
            ("\\u007f", "\\x7f"),
            ("\\u202e", "\\u202e"),
            ("\\ud800", "\\ud800"),
        )
    ),
    # Text that is no JSON object in UTF-8.
    (one() + "}", "the header is not valid JSON: Extra data at character 60"),
    (one() + "\0\0", "the header is not valid JSON: Extra data at character 60"),
    (" " + one(), "the header is not valid JSON: it does not begin with '{'"),
    ("\ufeff" + one(), "the header is not valid JSON: it does not begin with '{'"),
    ("", "the header is not valid JSON: it does not begin with '{'"),
    ("[]", "the header is not valid JSON: it does not begin with '{'"),
    ('{"a": }', "the header is not valid JSON: Expecting value at character 6"),
    ('{"a', "the header is not valid JSON: Unterminated string starting at character 1"),
    ('{"a\n": 1}', "the header is not valid JSON: Invalid control character at character 3"),
    (b'{"\xff": 1}', "the header is not valid JSON: its byte 2 is not UTF-8"),
    (b'{"\xed\xa0\x80": 1}', "the header is not valid JSON: its byte 2 is not UTF-8"),
    ('{"a": ' + "[" * 100_000, "the header is not valid: it is nested too deeply"),
    ('{"a": ' * 100_000, "the header is not valid: it is nested too deeply"),
    ('{"a": [' + "{}," * 600_000 + "{}]}",
     "the header lists more than any model has; the file is garbled"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "sentence"), FAULTS, ids=[sentence[:70] for _, sentence in FAULTS]
)
def test_each_fault_has_its_sentence(header: str | bytes, sentence: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "x.safetensors", header)) == sentence


def test_long_names_are_shortened(tmp_path: Path) -> None:
    name = "begin" + "\x1b" * 100_000 + "end"
    said = refusal(write(tmp_path / "x.safetensors", json.dumps({name: 1})))
    assert re.fullmatch(r"the name 'begin(\\x1b)+.{0,6}….{0,6}(\\x1b)+end' of a tensor .*", said)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "0 bytes is too short for a safetensors file"),
        (b"1234567", "7 bytes is too short for a safetensors file"),
        (b"GGUF" + bytes(40), "is not a safetensors file but a GGUF file; give it the ending "
         ".gguf"),
        (struct.pack("<Q", 3) + b"{}", "not a safetensors file, or truncated: its header claims 3 "
         "bytes and the file has 10"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "not a safetensors file, or truncated: its header "
         f"claims {2**64 - 1} bytes and the file has 10"),
    ],
)  # fmt: skip
def test_a_prefix_that_lies(raw: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(raw)
    assert refusal(file) == sentence


def test_a_header_longer_than_the_library_takes(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        stream.truncate(MAX_HEADER_BYTES + 100)  # a hole: the disk holds none of it
    assert "its header claims 100000001 bytes" in refusal(file)


def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a pipe would wait for ever; a device may have no end."""
    began = time.monotonic()
    assert refusal(tmp_path) == "is a folder"
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    assert refusal(pipe) == "is not a regular file"
    monkeypatch.chdir(tmp_path)  # a socket's whole path may be too long for it
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.safetensors")
        assert refusal(tmp_path / "socket.safetensors") == "is not a regular file"
    assert refusal(Path("/dev/zero")) == "is not a regular file"
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    assert "symbolic links" in refusal(loop)
    assert time.monotonic() - began < 5


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for missing in ("no.safetensors", "file/no.safetensors", "a\0b"):
        with pytest.raises(CheckpointNotFound, match="no such file"):
            read_header(tmp_path / missing)
    dangling = tmp_path / "dangling.safetensors"
    dangling.symlink_to(tmp_path / "nothing")
    with pytest.raises(CheckpointNotFound):
        read_header(dangling)


def test_control_characters_of_a_file_name_are_shown(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile) as caught:
        read_header(write(tmp_path / "evil\n\x1b[2J.safetensors", "[]"))
    assert "evil\\n\\x1b[2J.safetensors: " in str(caught.value)


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    """Also tensors without elements, without dimensions, and names in any script."""
    tensors = {
        "empty": torch.zeros(0, 5),
        "also empty": torch.zeros(3, 0, dtype=torch.int8),
        "scalar": torch.ones((), dtype=torch.bfloat16),
        "größe.数😀": torch.ones(3, dtype=torch.float8_e4m3fn),
        "rank 8": torch.ones(1, 1, 1, 1, 1, 1, 1, 2),
    }
    metadata = {"format": "pt", "": "line\nline\0", "é": "😀"}
    save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
    header = read_header(tmp_path / "x.safetensors")
    assert {t.name: t.shape for t in header.tensors} == {
        k: tuple(v.shape) for k, v in tensors.items()
    }
    assert header.metadata == metadata
    assert read_header(write(tmp_path / "none.safetensors", "{}", b"")).tensors == ()


def test_what_we_lay_out_is_read(tmp_path: Path) -> None:
    layout = lay_out("x", [], {"format": "pt"})
    (tmp_path / "x.safetensors").write_bytes(layout.header)
    assert read_header(tmp_path / "x.safetensors").metadata == {"format": "pt"}


def test_hostile_files_are_refused_as_the_library_refuses_them(tmp_path: Path) -> None:
    """A fixed sample of the fuzzing, which see."""
    words = [sys.executable, FUZZ, "--cases", "5000", "--seed", "7", "--no-heavy"]
    done = subprocess.run([*words, "--keep", tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    accepted, refused = map(int, re.findall(r"(\d+) (?:accepted|refused)", done.stdout))
    assert accepted + refused == 5000
    assert accepted > 500
    assert "findings: 0" in done.stdout
