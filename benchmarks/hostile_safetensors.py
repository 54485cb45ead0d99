"""Hostile safetensors files: sound ones, mutated, and headers built to cost time or memory."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

from fluxconv.converters.safetensors_header import MAX_HEADER_BYTES

WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "BF16": 2, "F16": 2, "F32": 4, "I64": 8}
NAMES = ("a", "b.weight", "blocks.0.attn.to_q.weight", "ü.weight", "数.bias", "x" * 70, "😀", "a b")
DTYPES = (*WIDTHS, "F4", "F6_E2M3", "F8_E8M0", "C64", "F128", "f32", "", "F32\0")
# Literals that Python's or a lax reader may take for a number, a name or the end.
LITERALS = (
    *("NaN", "Infinity", "-Infinity", "-0", "-1", "1.0", "1e2", "01", "0x10", "+1", "1_0", "true"),
    *("null", "false", "[]", "{}", '""', '"1"', "[0]", "[[0]]", str(2**63 - 1), str(2**63)),
    *(
        str(2**64 - 1),
        str(2**64),
        str(2**32),
        "9" * 5000,
        "1." + "9" * 500,
        "[" * 2000,
        '{"a":' * 500,
    ),
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\u0000"',
        '"\\u001b[31m"',
        '"\\n"',
        '"a\tb"',
        '"\\x"',
        "'a'",
    ),
    *("//", "/**/0", "0,", ",0", "", " ", "\ufeff", "\\u0061", '"\\u0061"', '"\u202e"'),
)
BYTES = (
    b"\0",
    b"\xff",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\xed\xa0\x80",
    b"\xc0\x80",
)


class Pairs(list[tuple[str, Any]]):
    """A JSON object that may name a key twice."""


class Literal(str):
    """Text that stands in the JSON as it is."""


def sound(rng: random.Random) -> tuple[Pairs, bytes]:
    """The header and the data of a file that every reader takes."""
    header, place = Pairs(), 0
    if rng.random() < 0.5:
        texts = ("pt", "", "é", '{"a": [1, 2]}', "x" * 300)
        keys = rng.sample(("format", "note", "a", ""), rng.randrange(4))
        header.append(("__metadata__", Pairs((key, rng.choice(texts)) for key in keys)))
    for name in rng.sample(NAMES, rng.choice((0, 1, 2, 3, 5))):
        dtype = rng.choice(list(WIDTHS))
        shape = [rng.choice((0, 1, 1, 2, 3, 7)) for _ in range(rng.randrange(4))]
        end = place + math.prod(shape) * WIDTHS[dtype]
        entry = Pairs([("dtype", dtype), ("shape", shape), ("data_offsets", [place, end])])
        rng.shuffle(entry)
        header.append((name, entry))
        place = end
    if rng.random() < 0.5:
        rng.shuffle(header)
    return header, rng.randbytes(place)


def written(node: Any, rng: random.Random, loose: float = 0.0) -> str:
    """The JSON text, with white space at a share `loose` of the places that allow it."""
    space = rng.choice((" ", "\n", "\t", "  ")) if rng.random() < loose else ""
    if isinstance(node, Literal):
        return str(node)
    if isinstance(node, Pairs):
        body = (f"{json.dumps(k)}:{space}{written(v, rng, loose)}" for k, v in node)
        return "{" + space + f",{space}".join(body) + "}"
    if isinstance(node, list):
        return f"[{space}" + ",".join(written(item, rng, loose) for item in node) + f"{space}]"
    return json.dumps(node, ensure_ascii=rng.random() < 0.5)


def places(node: Any) -> Iterator[tuple[list[Any], int]]:
    """Every list or object in the tree with every index into it."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield node, i
            yield from places(item[1] if isinstance(node, Pairs) else item)


def bend(header: Pairs, rng: random.Random) -> None:
    """One change to the structure."""
    found = list(places(header))
    if not found:
        header.append((rng.choice(NAMES), Literal(rng.choice(LITERALS))))
        return
    node, i = rng.choice(found)
    value = node[i][1] if isinstance(node, Pairs) else node[i]
    match rng.randrange(9):
        case 0:
            node.insert(rng.randrange(len(node) + 1), node[i])  # twice
            return
        case 1:
            del node[i]
            return
        case 2 if isinstance(node, Pairs):
            node[i] = (rng.choice((*NAMES, "dtype", "shape", "__metadata__", "\n", "")), value)
            return
        case 3 if type(value) is int:
            value = rng.choice(
                (value + 1, value - 1, -value, value * 2**32, value + 0.0, value * 2)
            )
        case 4 if type(value) is int:
            value = rng.choice((0, 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64))
        case 5 if isinstance(value, str):
            value = rng.choice(DTYPES)
        case 6 if isinstance(value, list):
            if not isinstance(value, Pairs):
                value += rng.choices((0, 1, 2**32, 2**62), k=rng.randrange(3))
            rng.shuffle(value)
        case 7 if isinstance(value, list) and len(value) == 2:
            by = rng.choice((-1, 1, value[0] if type(value[0]) is int else 1))
            value = [part + by if type(part) is int else part for part in value]  # elsewhere
        case 7:
            other, j = rng.choice(found)
            value = other[j][1] if isinstance(other, Pairs) else other[j]
            if isinstance(value, list):  # never itself within itself
                value = Literal(json.dumps(value))
        case _:
            value = Literal(rng.choice(LITERALS))
    node[i] = (node[i][0], value) if isinstance(node, Pairs) else value


def batter(raw: bytes, other: bytes, rng: random.Random) -> bytes:
    """One change to the bytes; `other` is a second file."""
    at = rng.randrange(len(raw) + 1)
    to = min(len(raw), at + rng.choice((1, 1, 2, 8, 40)))
    match rng.randrange(9):
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
        case 5:
            return raw[:at] + rng.choice(BYTES) + raw[at:]
        case 6:
            return raw[:at] + other[rng.randrange(len(other) + 1) :]
        case 7:
            (length,) = struct.unpack("<Q", raw[:8].ljust(8, b"\0"))
            lies = (length + 1, length - 1, length * 2, 0, len(raw), len(raw) - 8, 2**32, 2**63)
            return struct.pack("<Q", rng.choice((*lies, 2**64 - 1)) % 2**64) + raw[8:]
        case _:
            return raw + rng.randbytes(rng.randrange(1, 9))


def packed(text: str | bytes, data: bytes = b"") -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw + data


def case(rng: random.Random) -> bytes:
    """One file; about one in ten is sound."""
    header, data = sound(rng)
    kind = rng.random()
    if 0.1 < kind < 0.75:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            bend(header, rng)
    text = written(header, rng, rng.choice((0, 0, 0.3)))
    raw = packed(text + " " * (-len(text.encode("utf-8", "surrogatepass")) % 8), data)
    if kind > 0.6:
        other, rest = sound(rng)
        for _ in range(rng.choice((1, 1, 2, 5))):
            raw = batter(raw, packed(written(other, rng), rest), rng)
    return raw


def heavy() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files with headers near the limits, each built to cost much time or memory."""
    full = MAX_HEADER_BYTES
    entry = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    yield "too long", lambda: packed(b" " * (full + 1))
    yield "spaces", lambda: packed(b"{" + b" " * (full - 1))
    yield "lists in lists", lambda: packed(b'{"a":' + b"[" * (full - 5))
    yield "objects in objects", lambda: packed(b'{"a":' * (full // 5))
    yield "empty objects", lambda: packed(b'{"a":[' + b"{}," * (full // 3 - 2))
    yield "tiny entries", lambda: packed(b"{" + b'"a":0,' * (full // 6 - 1))
    yield "numbers", lambda: packed(b'{"a":[' + b"0," * (full // 2 - 3))
    yield "as many values as allowed", lambda: packed(b'{"a":[' + b"{}," * 499_990 + b"0]}")
    yield (
        "as many names as allowed",
        lambda: packed("{" + ",".join(f'"{i}":0' for i in range(999_990)) + "}"),
    )
    yield (
        "as many tensors as allowed",
        lambda: packed("{" + ",".join(entry % i for i in range(124_990)) + "}"),
    )
    yield "as deep as allowed", lambda: packed(b'{"a":' + b"[" * 999_990)
    yield "one whole number", lambda: packed(b'{"a":' + b"9" * (full - 6) + b"}")
    yield "one fraction", lambda: packed(b'{"a":0.' + b"9" * (full - 8) + b"}")
    yield "one name", lambda: packed(b'{"' + b"a" * (full - 6) + b'":0}')
    yield (
        "one wide name",
        lambda: packed("{" + json.dumps("😀" * (full // 4 - 2), ensure_ascii=False)),
    )
    yield "escapes", lambda: packed(b'{"' + b"\\u0000" * (full // 6 - 2) + b'":0}')
    yield "backslashes", lambda: packed(b'{"' + b"\\" * (full - 2))
    yield "one wide text", lambda: packed('{"__metadata__":{"a":"' + "😀" * (full // 4 - 8) + '"}}')
    text = b'{"__metadata__":{"a":"%s"}}'
    yield "one wide character", lambda: packed(text % ("😀".encode() + b"a" * (full - 29)))
    yield "escapes beside it", lambda: packed(text % ("😀".encode() + b"\\n" * (full // 2 - 15)))
    yield "no text", lambda: packed(b"{" + b"\xff" * (full - 1))
