"""Large files over Xet, through the client's own local store.

A client that has ``hf_xet`` uploads every large file by Xet; nothing that a server answers makes
it choose LFS instead (only ``HF_HUB_DISABLE_XET=1`` on the client's side does). So the rehearsal
Hub takes Xet too. The client asks for a write token and is told an address for its content store;
besides ``https://`` it accepts ``local://FOLDER``, and writes there what it would have sent. Each
token gets a folder of its own, because the store's index can be open in one process only.

When a commit names a large file by sha256 that is not here yet, it is looked up in the shards of
these folders (a shard lists the files of one upload), rebuilt with ``hf_xet``, hashed, and kept
as an ordinary content. Downloads then need no Xet: they are answered from the contents.

This works because client and server see the same disk, which loopback implies.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal import quota
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.disk import make_folder, remove
from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.repository import PULLS, Repository
from fluxconv.hub.rehearsal.store import Store

_LOG = logging.getLogger("fluxconv.hub.rehearsal")

# Longer than any upload: a token that expired in the middle would be refreshed with a new folder.
_LIFETIME = 7 * 24 * 3600
# After this long without a new shard, the client has finished with a folder.
_AT_REST = 600

# Below the folder of a token, as laid out by hf_xet 1.8.
_OBJECTS = Path("xet/xorbs")
_INDEX = "global_dedup_lookup.redb"

# A shard: a header, then for each file a head, its segments, a verification entry for each
# segment if flagged, and an extension with the sha256 if flagged. Every record is 48 bytes. A
# head with a hash of ones ends the list.
_RECORD = 48
_END = b"\xff" * 32
_HAS_VERIFICATION = 1 << 31
_HAS_SHA256 = 1 << 30


# hf_xet is made for fetching over a network: its buffers would hold gigabytes of a local file.
# With these the server has at most some 230 MiB for a file of 1 GiB, and 30 more for another.
_CONFIG = {
    "client.ac_initial_download_concurrency": 1,
    "client.ac_max_download_concurrency": 1,
    "reconstruction.min_reconstruction_fetch_size": 16_000_000,
    "reconstruction.max_reconstruction_fetch_size": 16_000_000,
    "reconstruction.download_buffer_size": 16_000_000,
    "reconstruction.download_buffer_perfile_size": 16_000_000,
    "reconstruction.download_buffer_limit": 32_000_000,
    "reconstruction.min_prefetch_buffer": 16_000_000,
    "telemetry.enabled": False,
}


class StagedFile(NamedTuple):
    """A file in an upload that no commit has taken in yet."""

    folder: Path
    xet_hash: str
    size: int
    sha256: str | None


def write_token(call: Call) -> Response:
    """``GET /api/models/NS/NAME/xet-write-token/REV``: where to put the contents."""
    # Before a pull request is made there is no revision for it: the client then says "None".
    revision = call.parameter("revision")
    proposed = revision == "None" or revision.startswith(f"refs/{PULLS}/")
    repo = call.contributable_repository() if proposed else call.writable_repository()
    quota.check(call.store, repo, 1)
    if _hf_xet() is None:
        raise HubError(
            400,
            "This rehearsal Hub was started without the hf_xet package and cannot take Xet"
            " uploads: install it, or set HF_HUB_DISABLE_XET=1",
        )
    sweep(call.store, repo)
    folder = call.store.xet_folder(repo) / secrets.token_hex(8)
    make_folder(folder)
    address, token = f"local://{folder}", secrets.token_hex(16)
    expires = int(time.time()) + _LIFETIME
    return JSONResponse(
        {"casUrl": address, "accessToken": token, "exp": expires},
        headers={
            "X-Xet-Cas-Url": address,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expires),
        },
    )


def collect(store: Store, repo: Repository, wanted: Mapping[str, int | None]) -> None:
    """Turn Xet uploads into contents, for those of the wanted sha256 that were uploaded so.

    What cannot be found or rebuilt is left out: the commit then refuses the file. The caller
    holds the repository's lock.
    """
    missing = {sha256 for sha256 in wanted if not repo.has_object(sha256)}
    if not missing:
        return
    for folder in _folders(store, repo):
        files = {f.sha256: f for f in _files(folder) if f.sha256 in missing}
        if files:
            with store.rebuilding:
                _rebuild(store, repo, folder, {k: v for k, v in files.items() if k is not None})
            missing = {sha256 for sha256 in missing if not repo.has_object(sha256)}
            if _is_taken_in(repo, folder):
                store.disk.delete(folder)


def sweep(store: Store, repo: Repository) -> None:
    """Forget uploads that will not be needed: expired ones, and repetitions of what is here."""
    now = time.time()
    with repo.lock:
        for folder in _folders(store, repo):
            shards = folder / _OBJECTS / "shards"
            age = now - (shards if shards.exists() else folder).stat().st_mtime
            if age > _LIFETIME or (age > _AT_REST and _is_taken_in(repo, folder)):
                store.disk.delete(folder)


def _is_taken_in(repo: Repository, folder: Path) -> bool:
    hashes = [file.sha256 for file in _files(folder)]
    return bool(hashes) and all(h is not None and repo.has_object(h) for h in hashes)


def _rebuild(store: Store, repo: Repository, folder: Path, files: Mapping[str, StagedFile]) -> None:
    hf_xet = _hf_xet()
    if hf_xet is None:
        return
    view = store.disk.temporary()
    try:
        _open_view(folder, view)
        session = hf_xet.XetSession(hf_xet.XetConfig().with_config(_CONFIG))
        with session.new_download_stream_group(
            endpoint=f"local://{view}", token="-", token_expiry_unix_secs=int(time.time()) + 3600
        ) as group:
            for sha256, file in files.items():
                pieces = group.download_stream(hf_xet.XetFileInfo(file.xet_hash, file.size))
                _keep(store, repo, pieces, sha256)
    except (OSError, RuntimeError, ValueError):
        # An upload that was cut off, or is still going on: whatever is missing stays missing.
        _LOG.warning("An upload to %s cannot be rebuilt yet", repo.id, exc_info=True)
    finally:
        remove(view)


def _open_view(folder: Path, view: Path) -> None:
    """A second door to a store whose index the client may still have open."""
    source, target = folder / _OBJECTS, view / _OBJECTS
    target.mkdir(parents=True)
    shutil.copyfile(source / _INDEX, target / _INDEX)
    for name in ("xorbs", "shards"):
        (target / name).mkdir()
        for path in (source / name).iterdir():
            os.link(path, target / name / path.name)


def _keep(store: Store, repo: Repository, pieces: Iterable[bytes], sha256: str) -> None:
    with store.blobs.writer() as writer:
        for piece in pieces:
            writer.write(piece)
        if writer.sha256 == sha256:
            writer.keep()
            repo.grant_object(sha256)


def _folders(store: Store, repo: Repository) -> list[Path]:
    parent = store.xet_folder(repo)
    return sorted(parent.iterdir()) if parent.is_dir() else []


def _files(folder: Path) -> Iterator[StagedFile]:
    for shard in sorted((folder / _OBJECTS / "shards").glob("*.mdb")):
        yield from _read_shard(folder, shard)


def _read_shard(folder: Path, shard: Path) -> Iterator[StagedFile]:
    with shard.open("rb") as file:
        file.read(_RECORD)
        while len(head := file.read(_RECORD)) == _RECORD and not head.startswith(_END):
            flags, segments = struct.unpack_from("<II", head, 32)
            size = 0
            for _ in range(segments):
                segment = file.read(_RECORD)
                if len(segment) < _RECORD:
                    return  # cut off
                size += struct.unpack_from("<I", segment, 36)[0]
            if flags & _HAS_VERIFICATION:
                file.seek(_RECORD * segments, os.SEEK_CUR)
            sha256 = _hex(file.read(_RECORD)) if flags & _HAS_SHA256 else None
            yield StagedFile(folder, _hex(head), size, sha256)


def _hex(record: bytes) -> str:
    # A hash is four little-endian numbers of 64 bits and is printed as such.
    return b"".join(record[i : i + 8][::-1] for i in range(0, 32, 8)).hex()


def _hf_xet() -> Any | None:
    try:
        return importlib.import_module("hf_xet")
    except ImportError:
        return None
