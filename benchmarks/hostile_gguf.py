"""Hostile GGUF files: sound ones, mutated field by field, and headers built to cost time or memory.

A file is a list of pieces, each with the name of the field that it is, so that every kind of field
is mutated as often as it should be and the rest stays in order.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

NAMES = ("a", "blk.0.attn_q.weight", "img_in.weight", "ü.weight", "数", "x" * 63, "x" * 127, "a b")
KEYS = ("general.architecture", "general.name", "a", "tokenizer.ggml.tokens", "ü", "k" * 300)
TEXTS = ("flux", "", "é😀", "x" * 300, "\0", "\x1b[31m", "{}")
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, ARRAY, UINT32 = 8, 9, 4
#: Not Q8_1, whose size gguf-py has wrong.
TYPES = [kind for kind in GGML_QUANT_SIZES if kind is not GGMLQuantizationType.Q8_1]
HOSTILE_TEXTS = (
    *(b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"a\xe9", b"", b"\0", b"\n", b"\x1b[2J", b"x" * 128),
    *("\u202e".encode(), b"general.alignment", b"GGUF.version", b"../../etc", b"x" * 65_536),
)
EDGES = (0, 1, 2, 3, 4, 5, 8, 31, 32, 33, 64, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32)
HUGE = (2**40, 2**48, 2**60, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1)


@dataclass
class Piece:
    """Some bytes and the field that they are; `form` is the struct format of a number."""

    field: str
    raw: bytes
    form: str = ""


def number(field: str, form: str, value: float) -> Piece:
    return Piece(field, struct.pack("<" + form, value), form)


def text(field: str, raw: bytes) -> list[Piece]:
    return [number(f"length of {field}", "Q", len(raw)), Piece(field, raw)]


def scalar(form: str, rng: random.Random) -> Piece:
    return Piece("value", rng.randbytes(struct.calcsize(form)) if form != "?" else b"\1", form)


def value(rng: random.Random) -> list[Piece]:
    """The type and the value of a key."""
    kind = rng.choice((*SCALARS, TEXT, TEXT, ARRAY, ARRAY))
    start = number("type of value", "I", kind)
    if kind == TEXT:
        return [start, *text("text", rng.choice(TEXTS).encode())]
    if kind != ARRAY:
        return [start, scalar(SCALARS[kind], rng)]
    inner, count = rng.choice((*SCALARS, TEXT, TEXT)), rng.choice((0, 1, 3, 40))
    found = [start, number("type of elements", "I", inner), number("elements", "Q", count)]
    for _ in range(count):
        if inner == TEXT:
            found += text("element", rng.choice(TEXTS).encode())
        else:
            found.append(scalar(SCALARS[inner], rng))
    return found


def sound(rng: random.Random) -> list[Piece]:
    """A file that every reader takes."""
    keys = rng.sample(KEYS, rng.choice((0, 1, 2, 4)))
    alignment = rng.choice((0, 0, 1, 8, 32, 64, 4096))
    pairs = [[*text("key", key.encode()), *value(rng)] for key in keys]
    if alignment:
        pair = [number("type of value", "I", UINT32), number("alignment", "I", alignment)]
        pairs.insert(rng.randrange(len(pairs) + 1), [*text("key", b"general.alignment"), *pair])
    alignment, place, infos = alignment or 32, 0, []
    for name in rng.sample(NAMES, rng.choice((0, 1, 2, 3, 5))):
        kind = rng.choice(TYPES)
        weights, nbytes = GGML_QUANT_SIZES[kind]
        rank = rng.choice((1, 1, 2, 2, 2, 3, 4))
        sizes = [weights * rng.choice((0, 1, 1, 2))]
        sizes += [rng.choice((0, 1, 1, 2, 3)) for _ in range(rank - 1)]
        infos.append(
            [
                *text("name", name.encode()),
                number("rank", "I", rank),
                *(number("size", "Q", size) for size in sizes),
                number("type", "I", kind),
                number("offset", "Q", place),
            ]
        )
        place += math.prod(sizes) // weights * nbytes
        place += -place % alignment
    if rng.random() < 0.3:
        rng.shuffle(infos)
    found = [
        Piece("magic", b"GGUF"),
        number("version", "I", rng.choice((2, 3, 3))),
        number("tensors", "Q", len(infos)),
        number("keys", "Q", len(pairs)),
        *(piece for group in (*pairs, *infos) for piece in group),
    ]
    length = sum(len(piece.raw) for piece in found)
    return [*found, Piece("padding", bytes(-length % alignment)), Piece("data", bytes(place))]


def bent(pieces: list[Piece], rng: random.Random) -> None:
    """One field changed in its place."""
    fields = sorted({piece.field for piece in pieces})
    field = rng.choice(fields)
    at = rng.choice([i for i, piece in enumerate(pieces) if piece.field == field])
    piece = pieces[at]
    if piece.form and piece.form not in "fd?":
        width = 8 * struct.calcsize(piece.form)
        (now,) = struct.unpack("<" + piece.form, piece.raw)
        others = [p.raw for p in pieces if p.field == field and len(p.raw) == len(piece.raw)]
        (other,) = struct.unpack("<" + piece.form, rng.choice(others))
        near = (now + 1, now - 1, now * 2, now // 2, now + 32, now ^ 1 << rng.randrange(width))
        swapped = int.from_bytes(piece.raw, "big")
        wanted = rng.choice((rng.choice(near), rng.choice(EDGES), rng.choice(HUGE), other, swapped))
        piece.raw = (wanted % 2**width).to_bytes(width // 8, "little")
    elif piece.form:
        piece.raw = rng.randbytes(len(piece.raw))
    elif field in ("padding", "data"):
        piece.raw = piece.raw[: rng.randrange(len(piece.raw) + 1)] + bytes(
            rng.choice((0, 0, 1, 64))
        )
    else:
        others = [p.raw for p in pieces if p.field == field]
        cut = piece.raw[: rng.randrange(len(piece.raw) + 1)]
        piece.raw = rng.choice((rng.choice(HOSTILE_TEXTS), rng.choice(others), cut, b"GGUG"))
        if rng.random() < 0.8 and pieces[at - 1].field == f"length of {field}":
            pieces[at - 1] = number(f"length of {field}", "Q", len(piece.raw))


def moved(pieces: list[Piece], rng: random.Random) -> None:
    """Some pieces left out, twice there, or elsewhere."""
    start = rng.randrange(len(pieces))
    some = pieces[start : start + rng.choice((1, 1, 2, 5))]
    match rng.randrange(3):
        case 0:
            del pieces[start : start + len(some)]
        case 1:
            pieces[start:start] = [Piece(p.field, p.raw, p.form) for p in some]
        case _:
            del pieces[start : start + len(some)]
            to = rng.randrange(len(pieces) + 1)
            pieces[to:to] = some


def battered(raw: bytes, rng: random.Random) -> bytes:
    """One change to the bytes."""
    at = rng.randrange(len(raw) + 1)
    to = min(len(raw), at + rng.choice((1, 1, 2, 8, 40)))
    match rng.randrange(6):
        case 0:
            return raw[:at]
        case 1:
            return raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
        case 2:
            flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in raw[at : at + 1])
            return raw[:at] + flipped + raw[at + 1 :]
        case 3:
            return raw[:at] + raw[to:]
        case 4:
            return raw[:to] + raw[at:]
        case _:
            return raw + rng.randbytes(rng.randrange(1, 9))


def case(rng: random.Random) -> tuple[bytes, bool]:
    """One file, and whether it is sound: about one in ten is."""
    pieces, kind = sound(rng), rng.random()
    if 0.1 < kind < 0.85:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            bent(pieces, rng)
    if 0.75 < kind < 0.9 and pieces:
        moved(pieces, rng)
    raw = b"".join(piece.raw for piece in pieces)
    if kind > 0.9:
        for _ in range(rng.choice((1, 1, 2, 5))):
            raw = battered(raw, rng)
    return raw, kind <= 0.1


def start(tensors: int, keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)


def packed(words: bytes) -> bytes:
    return struct.pack("<Q", len(words)) + words


def heavy() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files whose headers cost as much as their bytes allow."""

    def infos(count: int) -> bytes:
        one = (packed(b"%08d" % i) + struct.pack("<IIQ", 0, 0, 0) for i in range(count))
        return start(count, 0) + b"".join(one)

    def keys(count: int) -> bytes:
        return start(0, count) + b"".join(packed(b"%08d" % i) + b"\0\0\0\0\0" for i in range(count))

    def texts(count: int) -> bytes:
        head = packed(b"a") + struct.pack("<IIQ", ARRAY, TEXT, count)
        return start(0, 1) + head + bytes(8 * count)

    def long_text(length: int) -> bytes:
        return start(0, 1) + packed(b"a") + struct.pack("<I", TEXT) + packed(b"x" * length)

    def many_texts(count: int) -> bytes:
        one = struct.pack("<I", TEXT) + packed(b"\xf0\x9f\x98\x80" * 250)
        return start(0, count) + b"".join(packed(b"%08d" % i) + one for i in range(count))

    yield "100,000 tensors at one place", lambda: infos(100_000)
    yield "2,000,000 tensors", lambda: infos(2_000_000)
    yield "100,000 keys", lambda: keys(100_000)
    yield "4,000,000 keys", lambda: keys(4_000_000)
    yield "2,000,000 empty texts", lambda: texts(2_000_000)
    yield "20,000,000 empty texts", lambda: texts(20_000_000)
    yield "a text of 16 MB", lambda: long_text(16 << 20)
    yield "a text of 300 MB", lambda: long_text(300 << 20)
    yield "16 MB of texts", lambda: many_texts(16_500)
    yield "100 MB of texts", lambda: many_texts(99_000)
    yield (
        "an array that is the file",
        lambda: (
            start(0, 1) + packed(b"a") + struct.pack("<IIQ", ARRAY, 0, 100 << 20) + bytes(100 << 20)
        ),
    )
