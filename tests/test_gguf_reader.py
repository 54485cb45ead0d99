"""Our GGUF reader: what it refuses, with which words, and never in more than a moment."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import gguf
import pytest
from gguf_files import write

from fluxconv.converters.errors import CheckpointNotFound, MalformedFile
from fluxconv.converters.gguf import fields, reader
from fluxconv.converters.gguf.fields import GgufArray
from fluxconv.converters.gguf.reader import read_gguf_header

FUZZ = Path(__file__).parent.parent / "benchmarks" / "fuzz_gguf.py"
F32, Q8_0, Q4_K, I8 = 0, 8, 12, 24
U8, U32, BOOL, TEXT, ARRAY = 0, 4, 7, 8, 9


# Making files ------------------------------------------------------------------------------------


def text(words: str | bytes) -> bytes:
    raw = words if isinstance(words, bytes) else words.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int = U32, value: bytes = b"\1\0\0\0") -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, elements: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + elements


def info(
    name: str | bytes = "a",
    sizes: Sequence[int] = (8,),
    kind: int = F32,
    offset: int = 0,
    rank: int | None = None,
) -> bytes:
    return (
        text(name)
        + struct.pack("<I", len(sizes) if rank is None else rank)
        + struct.pack(f"<{len(sizes)}Q", *sizes)
        + struct.pack("<IQ", kind, offset)
    )


def packed(
    infos: Sequence[bytes] = (),
    pairs: Sequence[bytes] = (),
    *,
    data: int = 256,
    alignment: int = 32,
    **claimed: int,
) -> bytes:
    """A file with room for `data` bytes of tensors; `claimed` are its version and its counts."""
    said = {"version": 3, "tensors": len(infos), "keys": len(pairs)} | claimed
    raw = b"GGUF" + struct.pack("<IQQ", said["version"], said["tensors"], said["keys"])
    raw += b"".join(pairs) + b"".join(infos)
    return raw + bytes(-len(raw) % alignment) + bytes(data)


def refusal(file: Path) -> str:
    """The sentence with which a file is refused, without the file's name."""
    with pytest.raises(MalformedFile) as caught:
        read_gguf_header(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert said.isprintable()
    assert len(said) < 400
    return said.removeprefix(f"{file}: ")


# What is refused ---------------------------------------------------------------------------------

ALIGNMENT = "general.alignment"
ONE = pair(ALIGNMENT)
BROKEN_OFF = "truncated or garbled: its header asks for {} bytes at byte {} and the file has {}; "
FAULTS: list[tuple[bytes, str]] = [
    # What is no GGUF file that we read.
    (b"", "is empty; download it again"),
    (b"GGUF", "4 bytes are too few for a GGUF file; download it again"),
    (packed()[:23], "23 bytes are too few for a GGUF file; download it again"),
    (b"GGML" + bytes(40), "is not a GGUF file; download it again, or give one that is"),
    (b"PK\3\4" + bytes(40), "is not a GGUF file but a zip or pickle file, which can run code when "
     "opened"),
    (b"\n<html>" + bytes(40), "is not a GGUF file but a web page; download the file again"),
    (b"tjgg" + bytes(40), "is not a GGUF file but a GGML file from before GGUF; convert it with an "
     "old llama.cpp"),
    (packed(version=0), "has GGUF version 0; fluxconv reads 2 and 3"),
    (packed(version=1), "has GGUF version 1; fluxconv reads 2 and 3"),
    (packed(version=4), "has GGUF version 4; fluxconv reads 2 and 3"),
    (packed(version=3 << 24), "is a big-endian GGUF file; convert it with `gguf-convert-endian`, "
     "of gguf-py"),
    # Counts.
    (packed(tensors=2**60), f"claims {2**60} tensors and 0 keys, and is too short for them; "
     "download it again"),
    (packed(keys=2**64 - 1), f"claims 0 tensors and {2**64 - 1} keys, and is too short for them; "
     "download it again"),
    (packed(tensors=11), "claims 11 tensors and 0 keys, and is too short for them; "
     "download it again"),
    (packed(tensors=100_001, data=3_000_000), "claims 100001 tensors and 0 keys, more than any "
     "model has"),
    (packed(keys=100_001, data=3_000_000), "claims 0 tensors and 100001 keys, more than any model "
     "has"),
    # Keys and values.
    (packed(pairs=[pair("")]), "has a key of no name"),
    (packed(pairs=[pair("k"), pair("k\n"), pair("k\n")]), "names the key 'k\\n' twice"),
    (packed(pairs=[pair("k" * 65_536)]), "has a key of 65536 bytes, and 65535 at most are read"),
    (packed(pairs=[pair(b"\xff")]), "has a key that is not UTF-8, before byte 33"),
    (packed(pairs=[pair("k", TEXT, text(b"\xed\xa0\x80"))]), "has a text that is not UTF-8, before "
     "byte 48"),
    (packed(pairs=[pair("k", TEXT, struct.pack("<Q", 2**63))]), f"has a text of {2**63} bytes, and "
     "16777216 at most are read"),
    (packed(pairs=[pair("k", TEXT, struct.pack("<Q", 290))]), BROKEN_OFF.format(290, 45, 320)
     + "download it again"),
    (packed(pairs=[pair("k", 13)]), "has metadata of the unknown type 13"),
    (packed(pairs=[pair("k", BOOL, b"\2")]), "has the truth value 2 where only 0 and 1 are ones"),
    # Arrays.
    (packed(pairs=[pair("k", ARRAY, array(U8, 2**64 - 1))]), BROKEN_OFF.format(2**64 - 1, 49, 320)
     + "download it again"),
    (packed(pairs=[pair("k", ARRAY, array(10, 2**61))]), BROKEN_OFF.format(2**64, 49, 320)
     + "download it again"),
    (packed(pairs=[pair("k", ARRAY, array(TEXT, 2**62))]), f"has an array of {2**62} texts; the "
     "file is garbled"),
    (packed(pairs=[pair("k", ARRAY, array(TEXT, 35))]), "has an array of 35 texts; the file is "
     "garbled"),
    (packed(pairs=[pair("k", ARRAY, array(TEXT, 2, text("a") + struct.pack("<Q", 2**40)))]),
     BROKEN_OFF.format(2**40, 66, 352) + "download it again"),
    (packed(pairs=[pair("k", ARRAY, array(ARRAY, 1, array(U8, 1, b"\0")))]),
     "has an array of arrays"),
    (packed(pairs=[pair("k", ARRAY, array(13, 1))]), "has an array of the unknown type 13"),
    # Alignment.
    (packed(pairs=[pair(ALIGNMENT, value=bytes(4))]), "has the impossible alignment 0"),
    (packed(pairs=[pair(ALIGNMENT, value=b"\x30\0\0\0")]), "has the impossible alignment 48"),
    (packed(pairs=[pair(ALIGNMENT, 10, bytes(8))]), "has general.alignment of the type 10, which "
     "has to be a number in 32 bits"),
    (packed([info(offset=48)]), "tensor 'a' lies at 48, which is no multiple of 32"),
    (packed([info(offset=32)], [pair(ALIGNMENT, value=b"\x40\0\0\0")]),
     "tensor 'a' lies at 32, which is no multiple of 64"),
    # Tensors.
    (packed([info("")]), "the name '' of a tensor is empty or cannot be printed"),
    (packed([info("a\x1b[2J")]), "the name 'a\\x1b[2J' of a tensor is empty or cannot be printed"),
    (packed([info("a" * 128)]), "has a tensor's name of 128 bytes, and 127 at most are read"),
    (packed([info(b"\xff")]), "has a tensor's name that is not UTF-8, before byte 33"),
    (packed([info(), info(offset=32)]), "names the tensor 'a' twice"),
    (packed([info(sizes=[1] * 5)]), "tensor 'a' has 5 dimensions, and 4 at most are possible"),
    (packed([info(rank=2**32 - 1)]), f"tensor 'a' has {2**32 - 1} dimensions, and 4 at most are "
     "possible"),
    (packed([info(kind=4)]), "tensor 'a' has the type 4, which is unknown or was given up"),
    (packed([info(kind=2**31)]), f"tensor 'a' has the type {2**31}, which is unknown or was given "
     "up"),
    (packed([info(sizes=[100], kind=Q8_0)]), "tensor 'a': rows of 100 are no blocks of 32, as Q8_0 "
     "is"),
    (packed([info(sizes=[128, 2], kind=Q4_K)]), "tensor 'a': rows of 128 are no blocks of 256, as "
     "Q4_K is"),
    (packed([info(sizes=[], kind=Q8_0)]), "tensor 'a': rows of 1 are no blocks of 32, as Q8_0 is"),
    (packed([info(sizes=[2**63])]), "tensor 'a' has an impossible shape: more than 2**63 bytes"),
    (packed([info(sizes=[2**32, 2**32])]), "tensor 'a' has an impossible shape: more than 2**63 "
     "bytes"),
    (packed([info(sizes=[2**40, 2**40, 0])]), "tensor 'a' has an impossible shape: more than 2**63 "
     "bytes"),
    # Places.
    (packed([info(sizes=[9]), info("b", offset=32)]), "tensor 'b' overlaps 'a'"),
    (packed([info(sizes=[5], kind=I8), info("b", kind=I8, offset=4)], [ONE]),
     "tensor 'b' overlaps 'a'"),
    (packed([info("b", offset=32), info(sizes=[9])]), "tensor 'b' overlaps 'a'"),
    (packed([info(), info("b")]), "tensor 'b' overlaps 'a'"),
    (packed([info(sizes=[64]), info("b", sizes=[0], offset=64)]), "tensor 'b' overlaps 'a'"),
    (packed([info(sizes=[65])]), "truncated or garbled: its header describes 324 bytes and the "
     "file has 320; download it again"),
    (packed([info(offset=2**64 - 32)]), f"truncated or garbled: its header describes {2**64 + 64} "
     "bytes and the file has 320; download it again"),
    (packed([info()], data=31), "truncated or garbled: its header describes 96 bytes and the file "
     "has 95; download it again"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "sentence"), FAULTS, ids=[f"{i}-{s[:60]}" for i, (_, s) in enumerate(FAULTS)]
)
def test_each_fault_has_its_sentence(raw: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(raw)
    assert refusal(tmp_path / "x.gguf") == sentence


def test_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    pairs = [pair("k", TEXT, text("words")), pair("l", ARRAY, array(TEXT, 2, text("a") * 2))]
    whole = packed([info(), info("b", [4, 3], offset=32)], pairs, data=80)
    file = tmp_path / "x.gguf"
    file.write_bytes(whole)
    assert [t.name for t in read_gguf_header(file).tensors] == ["a", "b"]
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert "shorter" not in refusal(file)  # noticed before it is read


def test_text_beyond_all_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text within its limit, and all of them, or all elements, above that of a header."""
    monkeypatch.setattr(fields, "MAX_TEXT", 100)
    (tmp_path / "x.gguf").write_bytes(packed(pairs=[pair(key * 51) for key in "ab"]))
    assert "more text in its metadata" in refusal(tmp_path / "x.gguf")
    monkeypatch.setattr(fields, "MAX_ELEMENTS", 5)
    texts = array(TEXT, 3, text("") * 3)
    (tmp_path / "x.gguf").write_bytes(packed(pairs=[pair(k, ARRAY, texts) for k in "ab"]))
    assert "an array of 3 texts" in refusal(tmp_path / "x.gguf")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    began = time.monotonic()
    assert refusal(tmp_path) == "is a folder"
    os.mkfifo(tmp_path / "pipe.gguf")
    assert refusal(tmp_path / "pipe.gguf") == "is not a regular file"
    assert refusal(Path("/dev/zero")) == "is not a regular file"
    assert time.monotonic() - began < 5


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for missing in ("no.gguf", "file/no.gguf", "a\0b"):
        with pytest.raises(CheckpointNotFound, match="no such file"):
            read_gguf_header(tmp_path / missing)


def test_a_file_that_becomes_shorter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a download that starts over does; a mapped file would end the process."""
    file = tmp_path / "x.gguf"
    file.write_bytes(packed(pairs=[pair("k" * 100), pair("l" * 100)]))
    check = reader._check_beginning

    def cut(head: bytes, size: int) -> None:
        os.truncate(file, 90)
        check(head, size)

    monkeypatch.setattr(reader, "_check_beginning", cut)
    monkeypatch.setattr(reader, "BUFFER", 32)
    assert refusal(file) == "became shorter while it was read"


def test_control_characters_of_a_file_name_are_shown(tmp_path: Path) -> None:
    (tmp_path / "evil\n\x1b[2J.gguf").write_bytes(b"")
    with pytest.raises(MalformedFile) as caught:
        read_gguf_header(tmp_path / "evil\n\x1b[2J.gguf")
    assert "evil\\n\\x1b[2J.gguf: " in str(caught.value)


# What is read ------------------------------------------------------------------------------------


def test_lists_what_gguf_py_lists(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"

    def metadata(writer: gguf.GGUFWriter) -> None:
        writer.add_name("größe 数😀")
        writer.add_file_type(15)
        writer.add_float32("f", 0.1)
        writer.add_bool("b", True)
        writer.add_int64("i", -(2**40))
        writer.add_custom_alignment(64)
        writer.add_token_list([f"token {i}".encode() for i in range(1000)])
        writer.add_token_scores([float(i) for i in range(1000)])

    types = {"größe.数😀": ("Q4_K", (3, 512)), "s": ("F32", (1,)), "4": ("Q8_0", (2, 1, 3, 64))}
    write(file, types, metadata=metadata)
    theirs, ours = gguf.GGUFReader(file), read_gguf_header(file)
    assert [(t.name, t.type_name, list(t.shape), t.offset, t.nbytes) for t in ours.tensors] == [
        (t.name, t.tensor_type.name, t.shape.tolist()[::-1], t.data_offset, t.n_bytes)
        for t in theirs.tensors
    ]
    wanted = {key: field.contents() for key, field in theirs.fields.items() if key[:5] != "GGUF."}
    assert len(wanted) == 9
    assert wanted == {
        key: list(value) if isinstance(value, GgufArray) else value
        for key, value in ours.metadata.items()
    }
    assert ours.size == file.stat().st_size


def test_arrays_stay_in_the_file_until_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    texts = array(TEXT, 3, text("a") + text("b") + text(b"\xff"))
    file.write_bytes(packed(pairs=[pair("k", ARRAY, texts), pair("l", ARRAY, array(U8, 0))]))
    metadata = read_gguf_header(file).metadata
    assert len(metadata["k"]) == 3
    assert list(islice(metadata["k"], 2)) == ["a", "b"]
    with pytest.raises(MalformedFile, match=r"x\.gguf: has a text that is not UTF-8"):
        list(metadata["k"])
    assert list(metadata["l"]) == []


def test_what_may_be_odd_is_read(tmp_path: Path) -> None:
    """Tensors of no weights or no dimensions, gaps, any order, an alignment of 1, version 2."""
    file = tmp_path / "x.gguf"
    infos = [
        info("last", [4], offset=100),
        info("scalar", []),
        info("first", [3], offset=4),
        info("none", [0, 7], offset=4),
        info("n" * 127, [2], offset=50),
    ]
    file.write_bytes(packed(infos, [ONE], data=116, alignment=1, version=2))
    start = file.stat().st_size - 116
    assert [
        (t.name, t.shape, t.offset - start, t.nbytes) for t in read_gguf_header(file).tensors
    ] == [
        ("scalar", (), 0, 4),
        ("none", (7, 0), 4, 0),
        ("first", (3,), 4, 12),
        ("n" * 127, (2,), 50, 8),
        ("last", (4,), 100, 16),
    ]
    file.write_bytes(packed())
    assert read_gguf_header(file).tensors == ()


def test_hostile_files_are_refused_and_judged_by_gguf_py(tmp_path: Path) -> None:
    """A fixed sample of the fuzzing, which see."""
    words = [sys.executable, FUZZ, "--cases", "2000", "--seed", "7", "--no-heavy"]
    done = subprocess.run([*words, "--keep", tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    accepted, refused = map(int, re.findall(r"(\d+) (?:accepted|refused)", done.stdout)[:2])
    assert accepted + refused == 2000
    assert accepted > 400
    assert "findings: 0" in done.stdout
