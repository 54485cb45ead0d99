"""Another writer, between the client's reading and its writing."""

from __future__ import annotations

import base64
from typing import Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange
from fluxconv.hub.rehearsal.gitobjects import blob_oid
from fluxconv.hub.rehearsal.repository import DEFAULT_BRANCH, File
from fluxconv.hub.rehearsal.store import Store

_AUTHOR = "somebody-else"


class SneakedCommit(Action):
    """Before the request is carried out, somebody else commits to the repository it names.

    ``files`` are texts by path, ``binary`` contents in base64, ``deleted`` paths.
    """

    do: Literal["sneaked-commit"] = "sneaked-commit"
    files: dict[str, str] = Field(default_factory=lambda: {"sneaked.txt": "by somebody else\n"})
    binary: dict[str, str] = Field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    branch: str = DEFAULT_BRANCH
    title: str = "Somebody else's commit"

    async def perform(self, exchange: Exchange) -> None:
        """The request then meets a head that it has not seen."""
        await run_in_threadpool(self._commit, exchange)
        await exchange.carry_out()

    def _commit(self, exchange: Exchange) -> None:
        contents = {path: text.encode() for path, text in self.files.items()}
        contents |= {path: base64.b64decode(text) for path, text in self.binary.items()}
        new = {path: _file(exchange.store, data) for path, data in contents.items()}

        def change(tree: dict[str, File]) -> dict[str, File]:
            kept = {path: file for path, file in tree.items() if path not in self.deleted}
            return {**kept, **new}

        exchange.repository().advance(
            self.branch, author=_AUTHOR, title=self.title, description="", change=change
        )


def _file(store: Store, data: bytes) -> File:
    return File(blob_oid(data), len(data), store.blobs.put(data), lfs=False)
