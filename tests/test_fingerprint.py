"""The fingerprint of weights: what it is by its definition, and that no change goes unseen."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxconv.converters.fingerprint import Fingerprint

BLOCK = 4096


def by_definition(data: bytes) -> str:
    """In whole numbers, word by word."""
    drawn = hashlib.shake_256(b"fluxconv fingerprint").digest(BLOCK)
    factors = [int.from_bytes(drawn[at : at + 8], "little") | 1 for at in range(0, BLOCK, 8)]
    whole = len(data) // BLOCK * BLOCK
    digest = hashlib.sha256()
    for start in range(0, whole, BLOCK):
        words = (
            int.from_bytes(data[at : at + 8], "little") for at in range(start, start + BLOCK, 8)
        )
        total = sum(word * factor for word, factor in zip(words, factors, strict=True))
        digest.update((total % 2**64).to_bytes(8, "little"))
    digest.update(data[whole:])
    return digest.hexdigest()


def taken(data: bytes, piece: int = 1 << 22, shift: int = 0) -> str:
    """In pieces, from memory that begins `shift` bytes beside a word."""
    found = Fingerprint()
    memory = memoryview(bytearray(shift) + data)[shift:]
    for start in range(0, len(data), piece):
        found.update(memory[start : start + piece])
    return found.hexdigest()


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 9 * BLOCK + 77])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_it_is_what_its_definition_says_however_it_is_fed(size: int, shift: int) -> None:
    data = random.Random(size).randbytes(size)
    wanted = by_definition(data)
    assert taken(data, shift=shift) == taken(data, 2 * BLOCK, shift) == wanted


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 3 * BLOCK + 99), bit=st.integers(0, 7))
def test_one_bit_is_seen_wherever_it_is(at: int, bit: int) -> None:
    data = bytearray(random.Random(1).randbytes(3 * BLOCK + 100))
    before = taken(bytes(data))
    data[at] ^= 1 << bit
    assert taken(bytes(data)) != before


def test_what_changes_places_is_seen() -> None:
    data = random.Random(2).randbytes(4 * BLOCK)
    before = taken(data)
    for size in (2, 8, 64, BLOCK):  # a weight, a word, a row, a block
        for start in (0, size, BLOCK - 2 * size if size < BLOCK else 0):
            one, other = data[start : start + size], data[start + size : start + 2 * size]
            moved = data[:start] + other + one + data[start + 2 * size :]
            assert taken(moved) != before, (size, start)
    assert taken(data + b"\0") != before and taken(data[:-1]) != before
    assert taken(bytes(BLOCK)) != taken(bytes(2 * BLOCK))


def test_what_comes_behind_the_last_piece_is_refused() -> None:
    found = Fingerprint()
    found.update(memoryview(bytes(BLOCK + 1)))
    with pytest.raises(ValueError, match="whole blocks"):
        found.update(memoryview(b"x"))
