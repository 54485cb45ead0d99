"""Sending large files, in a process that is ended when nothing moves any more."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from fluxconv.converters import errors
from fluxconv.converters.errors import HubError, HubRefused, HubUnreachable
from fluxconv.converters.progress import Progress
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.publication import PublishedFile
from fluxconv.hub.retrying import Retrying
from fluxconv.hub.session import Session
from fluxconv.hub.uploader import Large, Order

#: Bytes that must go within the timeout, or else nothing moves.
_LEAST = 64 << 10
#: Bytes at the beginning of a file from which the Hub tells text from other things.
_SAMPLE = 512
_AT_ONCE = 256
_LOOK = 0.5


def large_files(
    session: Session, repository: str, files: Sequence[PublishedFile], *, create_pr: bool
) -> frozenset[str]:
    """The paths of the files that the Hub wants uploaded one by one; the others travel in the
    commit. Raises `HubRefused` if its own `.gitignore` would leave one out, and `HubError`s."""
    from huggingface_hub import get_session, hf_raise_for_status

    large = set()
    for start in range(0, len(files), _AT_ONCE):
        asked = [
            {"path": each.path, "size": each.record.size, "sample": _sample(each)}
            for each in files[start : start + _AT_ONCE]
        ]
        with hub_errors(repository):
            response = get_session().post(
                f"{session.endpoint}/api/models/{repository}/preupload/main",
                params={"create_pr": "1"} if create_pr else None,
                headers=session.headers(),
                json={"files": asked},
            )
            hf_raise_for_status(response)
            modes = {each["path"]: each for each in response.json()["files"]}
            for each in asked:
                mode = modes[each["path"]]
                if mode.get("shouldIgnore"):
                    raise HubRefused(
                        f"{repository}: its .gitignore leaves out '{each['path']}'; remove that "
                        "line from it"
                    )
                # An empty file has no large content.
                if mode["uploadMode"] == "lfs" and each["size"]:
                    large.add(str(each["path"]))
    return frozenset(large)


def upload(
    session: Session,
    repository: str,
    files: Sequence[PublishedFile],
    progress: Progress,
    uploader: Uploader,
    *,
    create_pr: bool,
) -> None:
    """Send the contents of large files; nothing is visible before a commit names them.

    It goes on after every failure that may pass, as long as bytes move. Raises `SourceChanged` for
    a file that is not what was hashed, `HubUnreachable`, `HubRefused`, `HubError`.
    """
    order = Order(
        session.endpoint,
        session.token,
        session.timeout,
        repository,
        create_pr,
        tuple(_large(each) for each in files),
    )
    attempts = Retrying(session.timeout)
    bar = _Bar(progress, sum(each.record.size for each in files))
    while True:
        answer = _attempt(order, attempts, bar, uploader)
        if "sent" in answer:
            break
        kind = getattr(errors, str(answer["kind"]), HubError)
        error = kind(str(answer["failed"]))
        for each in files:
            # A server that hashes what arrives refuses a content that has changed.
            each.refuse_changed(thoroughly=isinstance(error, HubRefused))
        if not (answer["again"] and attempts.wait()):
            raise error
    for each in files:
        each.refuse_changed()
        if answer["sent"].get(each.path) != each.record.sha256:
            raise each.changed()
    bar.complete()


class _Bar:
    """The progress that a user sees: it never goes back when something is sent again."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._shown = progress, total, 0

    def reach(self, done: int) -> None:
        done = min(done, self._total)
        if done > self._shown:
            self._progress.advance(done - self._shown, "")
            self._shown = done

    def complete(self) -> None:
        self.reach(self._total)


def _attempt(order: Order, attempts: Retrying, bar: _Bar, uploader: Uploader) -> dict[str, Any]:
    """One try; the process's last word. Ended here if nothing moves before the deadline, and after
    everything but success."""
    furthest = mark = 0
    began = time.monotonic()
    uploader.send(order)
    is_done = False
    try:
        for line in uploader.lines():
            if line is None:
                # What Python takes to start is not the Hub's.
                if uploader.is_ready and not attempts.left:
                    raise HubUnreachable(
                        f"{order.repository}: nothing moved for {order.timeout:.0f} s while "
                        "uploading; run the same command again, it goes on where this one was"
                    )
                continue
            said = json.loads(line)
            if "ready" in said:
                uploader.is_ready = True
                attempts.deadline += time.monotonic() - began
            elif "done" in said:
                if said["of"] != uploader.orders:
                    continue
                bar.reach(said["done"])
                furthest = max(furthest, said["done"] + said["transferred"])
                if furthest - mark >= _LEAST:
                    mark = furthest
                    attempts.restart()
            else:
                is_done = "sent" in said
                return dict(said)
    finally:
        if not is_done:
            uploader.end()
    return {
        "failed": f"{order.repository}: the upload broke off; run the same command again",
        "kind": "HubError",
        "again": True,
    }


class Uploader:
    """The process that uploads: started ahead of its use, kept for the next repository, ended with
    the block or when something went wrong."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        #: How many it has been given.
        self.orders = 0
        #: Whether it has come so far that it can hear an order.
        self.is_ready = False

    def __enter__(self) -> Uploader:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> subprocess.Popen[bytes]:
        """Have it start, unless it runs already."""
        from huggingface_hub import constants

        if self._process is None:
            self._rest, self.orders, self.is_ready = b"", 0, False
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fluxconv.hub.uploader"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is ours to hear; it ends with us.
                start_new_session=True,
                env={
                    **os.environ,
                    "HF_HUB_DISABLE_PROGRESS_BARS": "0",
                    "HF_HUB_OFFLINE": str(int(constants.HF_HUB_OFFLINE)),
                    "HF_HUB_DISABLE_XET": str(int(constants.HF_HUB_DISABLE_XET)),
                },
            )
        return self._process

    def send(self, order: Order) -> None:
        """Have it carry out an order."""
        process = self.start()
        self.orders += 1
        assert process.stdin
        # One that is gone already says so by the end of its output.
        with suppress(BrokenPipeError):
            process.stdin.write(order.to_json().encode() + b"\n")
            process.stdin.flush()

    def lines(self) -> Iterator[bytes | None]:
        """What it says; None from time to time, so that somebody can look at the clock."""
        process = self.start()
        assert process.stdout
        handle = process.stdout.fileno()
        while True:
            yield None
            if not select.select([handle], [], [], _LOOK)[0]:
                continue
            piece = os.read(handle, 1 << 16)
            if not piece:
                return
            *lines, self._rest = (self._rest + piece).split(b"\n")
            yield from lines

    def end(self) -> None:
        """Whatever it is doing."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()
        process.wait()


def _large(file: PublishedFile) -> Large:
    if isinstance(file.content, bytes):
        text = base64.b64encode(file.content).decode()
        return Large(file.path, file.record.sha256, content=text)
    return Large(file.path, file.record.sha256, place=str(file.content))


def _sample(file: PublishedFile) -> str:
    if isinstance(file.content, bytes):
        head = file.content[:_SAMPLE]
    else:
        with file.content.open("rb") as stream:
            head = stream.read(_SAMPLE)
    return base64.b64encode(head).decode()
