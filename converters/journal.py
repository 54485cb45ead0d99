"""What of a variant is written so far, so that the same command goes on where it was stopped.

A text file inside the temporary folder, one JSON object a line. The first line says what is being
made, of what: another answer there, and the work starts anew. After it, a line for each weight that
is in its place (its component and name, the sha256 of the source file up to it, the true sizes of
tensors that the plan could only bound), and a line `synced` whenever the disk holds for good
everything named above it. After a crash of the machine, which only the change of its boot id tells,
only what was synced counts. A last line cut short by a kill is no line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, ItemsView, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

#: Its name inside the temporary folder.
JOURNAL_NAME = ".journal"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SYNC_EVERY = 1 << 30  # bytes written between two syncs

#: A weight by its component and its name.
Weight = tuple[str, str]


@dataclass(frozen=True)
class Written:
    """What a journal says of a weight: a `digest` of the source, and the true sizes of those of its
    tensors that the plan could only bound."""

    digest: str
    sizes: Mapping[str, int]


class Journal:
    """The journal of one variant; a context manager. One run at a time may have it open.

    `fits` may say no to what an earlier run left. `fresh` says that there is nothing to go on with,
    `why` for which reason, if it is one to tell.
    """

    def __init__(
        self,
        path: Path,
        subject: Mapping[str, Any],
        *,
        fits: Callable[[Journal], bool] = lambda journal: True,
    ) -> None:
        self.path = path
        self._subject = json.loads(json.dumps(subject))
        self._done: dict[Weight, Written] = {}
        self._settled: set[str] = set()
        self._unsynced = 0
        self._handle = -1
        self.why = ""
        self.fresh = not (self._read() and fits(self))
        if self.fresh:
            self._done, self._settled = {}, set()

    def __enter__(self) -> Journal:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if self.fresh else 0)
        self._handle = os.open(self.path, flags, 0o644)
        if self.fresh:
            self._add({"makes": self._subject, "boot": _boot()})
        else:
            os.write(self._handle, b"\n")  # ends a line that a kill cut short
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._handle)

    def __len__(self) -> int:
        return len(self._done)

    def began(self, component: str) -> bool:
        """Whether any of the component's weights is written."""
        return any(name == component for name, _ in self._done)

    def digest(self, component: str, weight: str) -> str | None:
        """The sha256 of the source up to this weight if it is written, None if it is not."""
        written = self._done.get((component, weight))
        return written.digest if written else None

    def items(self) -> ItemsView[Weight, Written]:
        """Every weight that is written, with what is known of it."""
        return self._done.items()

    def sizes(self, component: str) -> Mapping[str, int]:
        """The true sizes of the component's tensors that the plan could only bound."""
        return {
            stored: nbytes
            for (of, _), written in self._done.items()
            if of == component
            for stored, nbytes in written.sizes.items()
        }

    def is_settled(self, component: str) -> bool:
        """Whether the component's files were written anew with the true sizes."""
        return component in self._settled

    def add(
        self, component: str, weight: str, digest: str, nbytes: int, sizes: Mapping[str, int]
    ) -> None:
        """Record that all of a weight is written."""
        line: dict[str, Any] = {"done": [component, weight, digest]}
        if sizes:
            line["sizes"] = dict(sizes)
        self._add(line)
        self._done[component, weight] = Written(digest, dict(sizes))
        self._unsynced += nbytes

    def sync(self, sync_files: Callable[[], None]) -> None:
        """Now and then, have the disk hold the files and then the journal's word for it."""
        if self._unsynced >= _SYNC_EVERY:
            sync_files()
            self.synced()

    def synced(self) -> None:
        """Record that the disk holds for good all that was written so far."""
        self._add({"synced": True})
        os.fdatasync(self._handle)
        self._unsynced = 0

    def settle(self, component: str) -> None:
        """Record that the component's files stand complete under their temporary names."""
        self._add({"settled": component})
        os.fdatasync(self._handle)
        self._settled.add(component)

    def _add(self, line: Mapping[str, Any]) -> None:
        os.write(self._handle, (json.dumps(line) + "\n").encode())

    def _read(self) -> bool:
        """Take up what an earlier run left; whether it is any good."""
        try:
            text = self.path.read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return False
        lines = [found for line in text.splitlines() if (found := _parsed(line)) is not None]
        if not lines or "makes" not in lines[0]:
            return False
        self.why = _difference(lines[0]["makes"], self._subject)
        if self.why:
            return False
        if lines[0].get("boot") != _boot():
            synced = [i for i, line in enumerate(lines) if "synced" in line or "settled" in line]
            lines = lines[: synced[-1] + 1] if synced else lines[:1]
        for line in lines[1:]:
            if "done" in line:
                component, weight, digest = line["done"]
                self._done[component, weight] = Written(digest, line.get("sizes", {}))
            elif "settled" in line:
                self._settled.add(line["settled"])
        return True


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    if before == now:
        return ""
    before = before if isinstance(before, dict) else {}
    changed = [key for key in now if before.get(key) != now[key]]
    return f"not the same {', '.join(changed)} as in the interrupted run" if changed else "changed"


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"unknown to process {os.getpid()}"
