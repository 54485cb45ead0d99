"""How long work reports its progress, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress. The commands show it with rich; a library user may pass their own."""

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        """A task of `total` units begins; it replaces the task before it."""

    def advance(self, amount: int, item: str = "") -> None:
        """`amount` more units are done; `item` names what is being worked on."""

    def finish(self) -> None:
        """The task is over."""

    def note(self, text: str) -> None:
        """A sentence that the user should read, beside the progress."""


class Silent:
    """Progress that nobody watches."""

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        pass

    def advance(self, amount: int, item: str = "") -> None:
        pass

    def finish(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass
