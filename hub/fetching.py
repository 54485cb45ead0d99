"""Fetching one file of a repository: gone on with where it was broken off, and checked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.converters.errors import HubError, WrongContent
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.remote import RemoteFile, RemoteRepository
from fluxconv.hub.retrying import Retrying
from fluxconv.hub.session import Session
from fluxconv.hub.transport import LEAST, watched

if TYPE_CHECKING:
    import httpx2

_CHUNK = 1 << 22
#: Bytes that wait in memory at most before the disk begins with them.
_WAITING = 32 << 20
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)")

#: Hears how many bytes are there now: a negative number if some had to be thrown away.
Advance = Callable[[int], object]


def fetch_file(
    session: Session,
    repository: RemoteRepository,
    path: str,
    place: Path,
    *,
    sha256: str | None = None,
    advance: Advance = lambda nbytes: None,
) -> None:
    """Bring the repository's file `path` to `place`, whatever of it lies there already.

    Bytes that an earlier run brought are kept and only the rest is asked for. A connection that
    breaks is taken up again as long as bytes arrive within the session's timeout. The content
    must be what the repository's tree says and, if it is given, have this `sha256`.

    Raises `WrongContent`, and then nothing is left at `place`; `HubUnreachable`, `HubRefused` or
    `HubError`, and then what has arrived stays for the next run.
    """
    expected, where = repository.files[path], f"{repository.name}/{path}"
    if sha256 is not None and expected.sha256 not in (None, sha256):
        raise WrongContent(
            f"{where}: is not the file that the manifest beside it names; it was changed after it "
            "was published"
        )
    with _Arriving(place, expected, advance) as arriving:
        is_resumed = arriving.size > 0
        _fill(session, repository, path, arriving)
        if is_resumed and not arriving.is_right(sha256):
            # What was here may be to blame: a crash can leave zeros where bytes were.
            arriving.start_over()
            _fill(session, repository, path, arriving)
        right = arriving.is_right(sha256)
        as_stored = arriving.is_right(None)
    if not right:
        place.unlink()
        raise WrongContent(
            f"{where}: differs from its hash in the manifest; it was changed after it was published"
            if as_stored
            else f"{where}: what arrived is not what the Hub says it has; try again"
        )


def read_start(session: Session, repository: RemoteRepository, path: str, count: int) -> bytes:
    """The first `count` bytes of a file, or all of a shorter one; they cannot be checked."""
    count = min(count, repository.files[path].size)
    if not count:
        return b""
    found = bytearray()
    with hub_errors(f"{repository.name}/{path}"), _open(session, repository, path, 0, count) as got:
        for piece in got.iter_bytes():
            found += piece
            if len(found) >= count:
                break
    if len(found) < count:
        raise HubError(f"{repository.name}/{path}: is shorter than the Hub says; try again")
    return bytes(found[:count])


def _fill(
    session: Session,
    repository: RemoteRepository,
    path: str,
    arriving: _Arriving,
) -> None:
    """Append what is lacking, over as many connections as it takes."""
    import httpx2

    where = f"{repository.name}/{path}"
    attempts, mark = Retrying(session.timeout), arriving.size
    while arriving.size < arriving.expected.size:
        broken: httpx2.TransportError = httpx2.RemoteProtocolError("it ended too early")
        with hub_errors(where), _open(session, repository, path, arriving.size) as response:
            if not _goes_on(where, response, arriving.size):
                arriving.start_over()
            try:
                for piece in watched(response.iter_bytes(), session.timeout):
                    arriving.add(piece)
                    if arriving.size > arriving.expected.size:
                        return  # longer than it can be, so it is not right
            except httpx2.TransportError as error:
                broken = error
        if arriving.size >= arriving.expected.size:
            return
        if arriving.size - mark >= LEAST:
            mark = arriving.size
            attempts.restart()
        if not attempts.wait():
            with hub_errors(where):
                raise broken


def _open(
    session: Session, repository: RemoteRepository, path: str, start: int, end: int | None = None
) -> Any:
    """A request for the file from `start` on, as a context manager that gives the response."""
    from huggingface_hub import get_session, hf_hub_url

    url = hf_hub_url(repository.name, path, revision=repository.commit, endpoint=session.endpoint)
    # As it is stored: what a server compresses has other sizes, and no ranges.
    headers = {"Accept-Encoding": "identity"}
    if session.token is not None:
        headers["Authorization"] = f"Bearer {session.token}"
    if start or end is not None:
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    return _checked(get_session().stream("GET", url, headers=headers))


class _checked:  # noqa: N801 - reads as a function where it is used
    """A stream whose refusals are raised when it is entered."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __enter__(self) -> httpx2.Response:
        from huggingface_hub import hf_raise_for_status

        response: httpx2.Response = self._stream.__enter__()
        try:
            hf_raise_for_status(response)
        except BaseException:
            self._stream.__exit__(None, None, None)
            raise
        return response

    def __exit__(self, *about: Any) -> None:
        self._stream.__exit__(*about)


def _goes_on(where: str, response: httpx2.Response, start: int) -> bool:
    """Whether the answer begins where we left off; a server may ignore ranges and send it all."""
    if response.status_code != 206:
        return start == 0
    match = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None or int(match[1]) != start:
        raise HubError(f"{where}: the Hub sent another part of it than was asked for; try again")
    return True


class _Arriving:
    """A file that grows, and its hash so far."""

    def __init__(self, place: Path, expected: RemoteFile, advance: Advance) -> None:
        self.expected, self._advance = expected, advance
        self._stream = place.open("a+b")
        #: How much of it the disk was told to write.
        self._begun = 0
        self._begin()
        self._stream.seek(0)
        if self._stream.seek(0, 2) > expected.size:
            self._stream.truncate(0)
        self._stream.seek(0)
        while piece := self._stream.read(_CHUNK):
            self._count(piece)

    def __enter__(self) -> _Arriving:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, piece: bytes) -> None:
        """Append what has arrived."""
        self._stream.write(piece)
        self._count(piece)
        if self.size - self._begun >= _WAITING and hasattr(os, "posix_fadvise"):
            # The disk is to hold it all in the end. Without this it would begin only then, and the
            # line would wait for it.
            os.posix_fadvise(
                self._stream.fileno(),
                self._begun,
                self.size - self._begun,
                os.POSIX_FADV_DONTNEED,
            )
            self._begun = self.size

    def start_over(self) -> None:
        """Forget all of it."""
        self._stream.truncate(0)
        self._advance(-self.size)
        self._begin()

    def is_right(self, sha256: str | None) -> bool:
        """Whether it is complete and what the tree says, and has this sha256 if one is given."""
        found = self._sha256.hexdigest()
        stored = (
            found == self.expected.sha256
            if self.expected.sha256
            else self._git.hexdigest() == self.expected.oid
        )
        return self.size == self.expected.size and stored and sha256 in (None, found)

    def _begin(self) -> None:
        self.size = 0
        self._begun = 0
        self._sha256 = hashlib.sha256()
        header = f"blob {self.expected.size}\0".encode()
        self._git = hashlib.sha1(header, usedforsecurity=False)

    def _count(self, piece: bytes) -> None:
        self.size += len(piece)
        self._sha256.update(piece)
        if not self.expected.sha256:  # git's own name is that of small files alone
            self._git.update(piece)
        self._advance(len(piece))
