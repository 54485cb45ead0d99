"""A hash of weights that shows whether they are still what they were, at the speed of memory.

Blocks of 4096 bytes are hashed with one multiplication for each word of 64 bits (multilinear
hashing: Carter and Wegman, "Universal classes of hash functions", 1979; Lemire and Kaser, "Strongly
universal string hashing is fast", 2014), and their hashes with sha256. A file that changed by
itself is seen; somebody who builds two files with one fingerprint is not, so what is published is
named by its sha256.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 4096  # bytes
_WORD = "<u8"


class Fingerprint:
    """Is fed like a hash of `hashlib`; all that comes before the last piece must be whole blocks,
    multiples of 4096 bytes."""

    def __init__(self) -> None:
        self._blocks = hashlib.sha256()
        self._ended = False

    def update(self, data: memoryview) -> None:
        """Take in the next bytes; raises `ValueError` behind a piece that was no whole blocks."""
        import numpy as np

        if self._ended:
            raise ValueError("a piece before this one was not whole blocks")
        whole = data.nbytes // _BLOCK * _BLOCK
        words = np.frombuffer(data[:whole], _WORD).reshape(-1, _BLOCK // 8)
        self._blocks.update((words @ _factors()).data)  # modulo 2**64
        self._blocks.update(data[whole:])
        self._ended = whole < data.nbytes

    def hexdigest(self) -> str:
        """Of all that came, 64 hexadecimal digits."""
        return self._blocks.hexdigest()


@cache
def _factors() -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Odd, so that any one word that changes changes its block's hash."""
    import numpy as np

    drawn = hashlib.shake_256(b"fluxconv fingerprint").digest(_BLOCK)
    return np.frombuffer(drawn, _WORD) | np.uint64(1)
