"""What a rehearsal Hub can be told about its limits."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes.

    The Hub sends large LFS files in parts, because its storage takes 5 GB at a time; here smaller
    ones are too, so that a rehearsal meets it. ``quota`` is for all repositories of a namespace
    together; None is no limit.
    """

    multipart_above: int = 128 * MIB
    part_size: int = 32 * MIB
    quota: int | None = None
