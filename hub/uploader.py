"""The process that uploads large files, so that whoever started it can end it at any moment.

The Hub's client chooses how they travel, by Xet or LFS. Xet is a library of its own, with
connections, retries and waits that no timeout of ours reaches; a process can be ended whatever it
does. It ends with its parent, too: when stdin closes, it is gone.

A line of JSON comes in for each repository, `Order`; out go lines of JSON: `ready` once at the
beginning, then `done` with the number of bytes that have gone so far `of` which order, counted from
1, and at the end of an order `sent` with the sha256 of each content as it was read, or `failed`
with a sentence and whether another try may go better: that is the last word.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import queue
import re
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from fluxconv.converters.errors import FluxconvError, HubError, HubRefused, HubUnreachable
from fluxconv.hub.errors import clean, hub_errors, meaning_of
from fluxconv.hub.session import bounded_client, open_session

#: Seconds between two lines that say how far it is.
_TICK = 0.2
#: What hf_xet says where the Hub said no; its errors have no status.
_REFUSED = re.compile(r"\b(401|402|403)\b")


@dataclass(frozen=True)
class Large:
    """A file to upload: its path in the repository, and where it is, or what (base64)."""

    path: str
    sha256: str
    place: str | None = None
    content: str | None = None

    @property
    def source(self) -> str | bytes:
        """As the client takes it."""
        return self.place or base64.b64decode(self.content or "")


@dataclass(frozen=True)
class Order:
    """What is to be uploaded, and to where. It holds the token, so it goes through a pipe."""

    endpoint: str
    token: str | None
    timeout: float
    repository: str
    create_pr: bool
    files: tuple[Large, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        data = json.loads(text)
        return cls(**{**data, "files": tuple(Large(**each) for each in data["files"])})


class _Told:
    """The bytes that have gone, told to the parent from time to time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._lock = out, threading.Lock()
        self._order = self._sent = self._transferred = 0

    def say(self, **what: Any) -> None:
        with self._lock:
            self._out.write(json.dumps(what).encode() + b"\n")
            self._out.flush()

    @property
    def order(self) -> int:
        """The number of the order that is being carried out."""
        return self._order

    def begin(self) -> None:
        """A new order: nothing of it has gone yet."""
        with self._lock:
            self._order, self._sent, self._transferred = self._order + 1, 0, 0

    def moved(self, nbytes: int) -> None:
        """Bytes of a request have gone; fewer than none, if they were in vain."""
        with self._lock:
            self._sent += nbytes

    def xet(self, order: int, processed: int, transferred: int) -> None:
        """What the Xet library says: bytes of files that are done with, and bytes that went."""
        with self._lock:
            if order == self._order:
                self._sent, self._transferred = processed, transferred

    def tick(self) -> None:
        last = None
        while True:
            with self._lock:
                now = (self._order, self._sent, self._transferred)
            if now != last:
                self.say(of=now[0], done=now[1], transferred=now[2])
                last = now
            threading.Event().wait(_TICK)


def main() -> None:
    """Carry out the orders on stdin."""
    # Libraries may print; the pipe is ours alone.
    told = _Told(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_hear, args=(orders,), daemon=True).start()
    _listen_to_xet(told)
    _import_client()
    told.say(ready=True)
    threading.Thread(target=told.tick, daemon=True).start()
    while _carry_out(Order.from_json(orders.get()), told):
        pass
    # Threads of the libraries may hang; nothing of them is needed any more.
    os._exit(0)


def _carry_out(order: Order, told: _Told) -> bool:
    """Whether all went well, so that another order may follow."""
    told.begin()
    try:
        told.say(sent=_upload(order, told))
        return True
    except FluxconvError as error:
        refused = isinstance(error, HubRefused)
        told.say(failed=str(error), kind=type(error).__name__, again=not refused)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to hear of it
        text = (
            f"{order.repository}: the upload failed ({type(error).__name__}: {clean(str(error))})"
        )
        told.say(failed=text, kind="HubError", again=False)
    return False


def _upload(order: Order, told: _Told) -> dict[str, str]:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.utils._runtime import is_xet_available
    from huggingface_hub.utils.tqdm import enable_progress_bars

    session = open_session(order.endpoint, order.token, order.timeout)
    by_xet = is_xet_available()
    additions = [CommitOperationAdd(file.path, file.source) for file in order.files]
    if not by_xet:
        # The server hashes what arrives. Xet takes our word: it must hash what it sends itself.
        for file, addition in zip(order.files, additions, strict=True):
            addition.upload_info.sha256 = bytes.fromhex(file.sha256)
    with (
        bounded_client(order.timeout, None if by_xet else told.moved, home=order.endpoint),
        hub_errors(order.repository),
    ):
        enable_progress_bars()  # the only thing that makes it ask Xet how far it is
        try:
            session.api.preupload_lfs_files(
                order.repository,
                additions,
                create_pr=order.create_pr,
                free_memory=False,
            )
        except (RuntimeError, OSError) as error:
            _raise_cause(order.repository, error)
    return {each.path_in_repo: each.upload_info.sha256.hex() for each in additions}


def _raise_cause(repository: str, error: Exception) -> None:
    """Raise what is behind an error of the client's uploads, or of Xet, which has no classes."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
    if isinstance(cause, HfHubHTTPError | OfflineModeIsEnabled):
        raise cause
    if not isinstance(cause, RuntimeError | OSError):
        raise cause
    text = clean(str(cause))
    status = _REFUSED.search(text)
    if status or isinstance(cause, PermissionError):
        raise HubRefused(f"{repository}: {meaning_of(int(status[1]) if status else 401)} ({text})")
    if isinstance(cause, ConnectionError):
        raise HubUnreachable(f"{repository}: the upload broke off ({text})")
    raise HubError(f"{repository}: the upload failed ({text}); run the same command again")


def _listen_to_xet(told: _Told) -> None:
    """Hear from the Xet library how far it is, in place of the client's own bars."""
    from huggingface_hub.utils import _xet_progress_reporting as reporting

    class Reporter:
        def __init__(self) -> None:
            self._order = told.order

        def update_progress(self, group: Any, _items: Any = None) -> None:
            told.xet(self._order, group.total_bytes_completed, group.total_transfer_bytes_completed)

        def close(self) -> None:
            pass

    # There is no public door; a test notices should this one be moved.
    reporting.XetUploadProgressReporter = Reporter  # type: ignore[assignment,misc]


def _import_client() -> None:
    """Before there is anything to do: it takes as long as sending some hundred megabytes."""
    import huggingface_hub.hf_api  # noqa: F401
    from huggingface_hub.utils._runtime import is_xet_available

    if is_xet_available():
        importlib.import_module("hf_xet")


def _hear(orders: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        orders.put(line)
    os._exit(1)


if __name__ == "__main__":
    main()
