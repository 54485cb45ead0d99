"""What the encoders promise for each type, against the C reference on one thread.

C's plain path has no importance; the other one is given importance of all ones, which makes it
search harder. Its better path is the one with the smaller error on the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """Error and speed as parts of C's.

    `error` is the most that `best` may have of the error of C's better path, on normal and on
    Student-t weights; on all others, and for `fast` against C's plain path, it is 1. `fast` is how
    many times as fast as C's plain path that level is at least, `best` how many times as fast as
    the better path.
    """

    error: float
    fast: float
    best: float = 2.0


PROMISES = {
    "Q2_K": Promise(0.968, 5),
    "Q3_K": Promise(0.993, 3),
    "Q4_K": Promise(0.984, 5),
    "Q5_K": Promise(0.972, 5),
    "Q6_K": Promise(0.954, 5),
    "Q4_0": Promise(0.992, 1),
    "Q4_1": Promise(0.984, 1),
    "Q5_0": Promise(0.990, 1),
    "Q5_1": Promise(0.984, 1),
    "Q8_0": Promise(1.000, 1, best=1.0),
    "IQ4_NL": Promise(0.982, 5),
    "IQ4_XS": Promise(0.980, 5),
}

#: The kinds of weights on which `Promise.error` holds.
TIGHT = ("normal", "Student-t")
#: How many times as fast as one thread two are at least.
TWO_THREADS = 1.8
