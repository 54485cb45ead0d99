"""File names that would lead a careless client out of its folder."""

from __future__ import annotations

import json
from typing import Any, Literal

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange

#: Up, absolute, Windows, hidden in the middle, git's own folder, a null, a colour of the terminal.
NAMES = (
    "../../outside.txt",
    "/tmp/outside.txt",
    "..\\..\\outside.txt",
    "C:\\outside.txt",
    "inside/../../outside.txt",
    ".git/hooks/post-checkout",
    "nul\0.txt",
    "\x1b[31mred.txt",
)


class HostileNames(Action):
    """Carry the request out and add files of these names to the listing.

    In a tree each is a copy of its first file's entry; in a model's description, a sibling.
    """

    do: Literal["hostile-names"] = "hostile-names"
    names: tuple[str, ...] = NAMES

    async def perform(self, exchange: Exchange) -> None:
        """An answer that lists no files stays as it is."""
        reply = await exchange.carry_out_silently()
        try:
            data = json.loads(reply.body)
        except ValueError:
            data = None
        if isinstance(data, list):
            self._extend(data, "path")
        elif isinstance(data, dict) and isinstance(data.get("siblings"), list):
            self._extend(data["siblings"], "rfilename")
        await exchange.answer(reply if data is None else reply.with_body(json.dumps(data).encode()))

    def _extend(self, entries: list[Any], key: str) -> None:
        files = [entry for entry in entries if entry.get("type", "file") == "file"]
        if files:
            entries.extend({**files[0], key: name} for name in self.names)
