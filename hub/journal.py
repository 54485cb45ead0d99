"""What a push has done, on this machine's disk: a convenience, never the truth.

The truth is what the Hub has, and every step looks there first. The journal spares work (a large
file that was sent and not yet committed), remembers what the Hub does not tell plainly (which of
several collections of one title is ours), and keeps two pushes on this machine apart. Without it,
on another machine, the same command ends in the same state.

One file for each repository or collection: a line of JSON for each step, written through to the
disk. Neither a token nor a path of the machine is in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluxconv.converters.errors import BadInput, OutputExists

#: Seconds after which contents that no commit names may have been swept away by the Hub.
_KEPT = 24 * 3600
#: Seconds between two looks whether another push has ended.
_LOOK = 0.1


def journal_folder() -> Path:
    """Where journals are kept: `$XDG_STATE_HOME/fluxconv/push`, by default in `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "fluxconv" / "push"


class Journal:
    """The steps of pushes to one place on the Hub, oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = list(_read(path))

    def note(self, step: str, **facts: Any) -> None:
        """Record a step that is done."""
        entry = {"step": step, "time": int(time.time()), **facts}
        self._entries.append(entry)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def last(self, step: str) -> dict[str, Any] | None:
        """The newest entry of that step, None if there is none."""
        return next((each for each in reversed(self._entries) if each["step"] == step), None)

    def has_sent(self, contents: set[str]) -> bool:
        """Whether files of these sha256 were all sent lately, and not forgotten since."""
        sent: set[str] = set()
        for entry in self._entries:
            if entry["step"] == "forgotten":
                sent.clear()
            elif entry["step"] == "sent" and time.time() - entry["time"] < _KEPT:
                sent |= set(entry["contents"])
        return contents <= sent

    def close_chapter(self, step: str, **facts: Any) -> None:
        """Keep this last step only: what came before it is all on the Hub now."""
        entry = {"step": step, "time": int(time.time()), **facts}
        # In place: the file that is locked must stay the same one.
        self._path.write_text(json.dumps(entry) + "\n", "utf-8")
        self._entries = [entry]


@contextlib.contextmanager
def open_journal(endpoint: str, place: str, *, wait: float = 0.0) -> Iterator[Journal]:
    """The journal of `place`, for this push alone.

    Raises `OutputExists` if another push on this machine has it, and still has it after `wait`
    seconds, `BadInput` if it cannot be kept.
    """
    path = _path(endpoint, place)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadInput(
            f"{path.parent}: the journal cannot be kept there ({error.strerror}); set "
            "XDG_STATE_HOME to a folder that can be written"
        ) from None
    try:
        deadline = time.monotonic() + wait
        while not _locked(handle):
            if time.monotonic() >= deadline:
                raise OutputExists(
                    f"{place}: another push on this machine is at it; wait for its end"
                )
            time.sleep(_LOOK)
        yield Journal(path)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Whether it is ours now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_journal(endpoint: str, place: str) -> Journal:
    """The journal of `place` as it is, to look at; empty if there is none."""
    return Journal(_path(endpoint, place))


def _path(endpoint: str, place: str) -> Path:
    digest = hashlib.sha256(f"{endpoint}\n{place}".encode()).hexdigest()[:24]
    return journal_folder() / f"{digest}.jsonl"


def _read(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    for line in text.splitlines():
        # The last line may be half, after a power cut.
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("step"), str):
                yield entry
