"""What the parts of a split pass wrote into a variant's hidden folder, as their journals say.

Each run of a part has a journal of its own there, which nobody else writes to: so parts need not
agree on anything, one that was killed is simply run again, and one that was only thought dead does
no harm, as it writes the same bytes to the same places. A part does not read the source from its
start, so its journal has for each weight the fingerprint of what that weight alone is made of
(`Read.own`), and the main journal takes a weight over once that was compared.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fluxconv.converters.journal import JOURNAL_NAME, Journal, Weight, Written

_PREFIX = f"{JOURNAL_NAME}-part-"


def new_path(folder: Path) -> Path:
    """Where a part's journal goes that is like no other, whatever machine writes it."""
    return folder / f"{_PREFIX}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def part_journals(
    folder: Path, subject: Mapping[str, Any], fits: Callable[[Journal], bool]
) -> list[Journal]:
    """The journals of all parts in `folder`, none of them open."""
    paths = sorted(folder.glob(f"{_PREFIX}*"))
    return [Journal(path, subject, fits=fits) for path in paths]


def written_by(journals: Sequence[Journal]) -> dict[Weight, Written]:
    """All weights that the journals name. Where two of them disagree on what a weight was made of,
    nobody knows which of the two stands there: it is left out."""
    found: dict[Weight, Written] = {}
    disputed: set[Weight] = set()
    for journal in journals:
        for weight, written in journal.items():
            if found.setdefault(weight, written).digest != written.digest:
                disputed.add(weight)
    return {weight: written for weight, written in found.items() if weight not in disputed}


def forget(folder: Path) -> None:
    """Remove the parts' journals, once the main journal has what they say."""
    for path in folder.glob(f"{_PREFIX}*"):
        path.unlink(missing_ok=True)
