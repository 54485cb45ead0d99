"""A server that does not keep what it was given."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from starlette.concurrency import run_in_threadpool

from fluxconv.hub.rehearsal.blobs import CHUNK, BlobWriter
from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange
from fluxconv.hub.rehearsal.gitobjects import blob_oid, lfs_pointer
from fluxconv.hub.rehearsal.repository import DEFAULT_BRANCH, File, Repository
from fluxconv.hub.rehearsal.store import Store


class CorruptedFile(Action):
    """Carry the request out, then flip a bit of each file of the newest commit that fits ``path``.

    ``listed``: the tree tells the hash of what is stored, so it can be seen in a listing. Without,
    the tree tells the right hash and only the bytes of a download are wrong; a new upload of the
    content repairs it.
    """

    do: Literal["corrupted-file"] = "corrupted-file"
    path: str = "*"
    listed: bool = True
    branch: str = DEFAULT_BRANCH

    async def perform(self, exchange: Exchange) -> None:
        """The answer is sent when the harm is done."""
        reply = await exchange.carry_out_silently()
        if reply.status < 300:
            await run_in_threadpool(self._harm, exchange.store, exchange.repository())
        await exchange.answer(reply)

    def _harm(self, store: Store, repo: Repository) -> None:
        commit = repo.resolve(self.branch)
        harmed: dict[str, File] = {}
        for path, file in commit.files.items():
            if file.size == 0 or not fnmatchcase(path, self.path):
                continue
            with store.blobs.writer() as writer:
                _copy_harmed(store, file, writer)
                if self.listed:
                    harmed[path] = _described(store, file, writer.keep())
                else:
                    writer.keep_at(repo.damaged_path(file.sha256))
                    repo.revoke_object(file.sha256)
        if harmed:
            repo.rewrite_files(commit, {**commit.files, **harmed})


def _copy_harmed(store: Store, file: File, writer: BlobWriter) -> None:
    with store.blobs.path(file.sha256).open("rb") as source:
        first = source.read(1)
        writer.write(bytes([first[0] ^ 1]))
        while piece := source.read(CHUNK):
            writer.write(piece)


def _described(store: Store, file: File, sha256: str) -> File:
    content = lfs_pointer(sha256, file.size) if file.lfs else store.blobs.get(sha256)
    return File(blob_oid(content), file.size, sha256, file.lfs)
