"""Requests that never wait past the user's `--timeout`, repeated where `retrying.py` allows it.

The Hub's client waits for ever on a silent server, sleeps as long as `Retry-After` says, and reads
answers of any length. It stays in charge of what is asked; this is put beneath it. Every request
runs in a thread of its own, which is left behind when the time is up: that bounds everything, the
look-up of a name and a header that trickles in included, and Ctrl-C is heard at once.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from fluxconv.hub.retrying import (
    TRANSIENT,
    UNDONE,
    Repeat,
    Retrying,
    may_repeat,
    repeat_of,
    retry_after,
)

#: Answers in JSON are far below this: a page of a repository's tree has some 100 kB.
LARGEST_ANSWER = 32 << 20
#: Bytes of content that must move within the timeout, or else nothing moves.
LEAST = 64 << 10
_API = re.compile(r"^/api/|\.git/info/lfs/objects/(batch|verify)$")
#: Waits between looks at the clock: a thread that is waited for hears Ctrl-C at once all the same.
_LOOK = 0.5


class Unanswered(Exception):
    """A request that was given up. `reason` and `advice` are fit for a user; `is_unclear` says that
    it may have been carried out; `status` is that of the last answer, if there was one."""

    def __init__(
        self,
        reason: str,
        advice: str = "check HF_ENDPOINT",
        *,
        is_unclear: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice
        self.is_unclear, self.status = is_unclear, status


class TimedOut(httpx2.TimeoutException):
    """Nothing moved for as long as the user wants to wait."""


class Bounded(httpx2.BaseTransport):
    """A transport around another; `timeout` is in seconds, `moved` hears of bytes that are sent,
    and no token goes to another host than that of the address `home`, if one is given."""

    def __init__(
        self,
        inner: httpx2.BaseTransport,
        timeout: float,
        moved: Callable[[int], object] | None = None,
        home: str | None = None,
    ) -> None:
        self._inner, self._timeout, self._moved = inner, timeout, moved
        self._home = httpx2.URL(home).netloc if home else None
        self._reached: set[str] = set()

    def close(self) -> None:
        self._inner.close()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it, again if need be; raises `Unanswered` when that is over."""
        repeat = repeat_of(request.method, request.url.path)
        attempts = Retrying(self._timeout)
        while True:
            status, asked = None, None
            try:
                response = self._send(request, attempts)
            except httpx2.TransportError as error:
                if repeat is Repeat.CALLER:
                    raise
                reason, undone = _said(error), _left_untouched(error)
                # Where nothing ever answered, waiting is of no use.
                goes_on = may_repeat(repeat, undone=undone) and not (
                    undone and request.url.netloc.decode() not in self._reached
                )
            else:
                self._reached.add(request.url.netloc.decode())
                self._refuse_elsewhere(request, response)
                if response.status_code not in TRANSIENT:
                    return response
                status, asked = (
                    response.status_code,
                    retry_after(response.headers.get("retry-after")),
                )
                reason, undone = _asks(status, asked), status in UNDONE
                goes_on = may_repeat(repeat, undone=undone)
                if repeat is Repeat.CALLER:
                    return _patient(response, attempts.left)
            if not (goes_on and attempts.wait(asked)):
                unclear = repeat is Repeat.UNDONE and not undone
                later = "run the same command again later"
                advice = "check the network and HF_ENDPOINT" if undone and not status else later
                raise Unanswered(reason, advice, is_unclear=unclear, status=status)

    def _send(self, request: httpx2.Request, attempts: Retrying) -> httpx2.Response:
        """One attempt, in a thread of its own."""
        if self._home not in (None, request.url.netloc):
            # The Hub may name any address, for an upload or a check of one.
            request.headers.pop("authorization", None)
        is_answer = bool(_API.search(request.url.path)) or request.method not in ("GET", "HEAD")
        if is_answer:
            # A small answer that unpacks into gigabytes is not read at all.
            request.headers["Accept-Encoding"] = "identity"
        set_by_client = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            each: min(set_by_client.get(each) or self._timeout, self._timeout)
            for each in ("connect", "read", "write", "pool")
        }
        call = _Call(self._inner, request, is_answer)
        is_taken = False
        try:
            response = call.result(_Watched(request.stream, call, self._moved), attempts)
            is_taken = response.status_code < 400
            return response
        finally:
            if self._moved is not None and not is_taken:
                self._moved(-call.sent)  # in vain

    def _refuse_elsewhere(self, request: httpx2.Request, response: httpx2.Response) -> None:
        place = response.headers.get("location")
        if place is None or not 300 <= response.status_code < 400:
            return
        target = request.url.join(place)
        is_elsewhere = (target.scheme, target.netloc) != (request.url.scheme, request.url.netloc)
        # Contents are kept elsewhere, and the client sends no token there. Anything else is not.
        if is_elsewhere and (
            request.method not in ("GET", "HEAD") or _API.search(request.url.path)
        ):
            raise Unanswered(f"the Hub sends us on to {target.host}, where a token must not go")


class _Call:
    """One attempt at a request, and the thread that makes it."""

    def __init__(self, inner: httpx2.BaseTransport, request: httpx2.Request, whole: bool) -> None:
        self._inner, self._request, self._whole = inner, request, whole
        self._done = threading.Event()
        self._response: httpx2.Response | None = None
        self._error: BaseException | None = None
        self._mark = 0
        #: Bytes of the body that have gone.
        self.sent = 0
        self.is_given_up = False

    def result(self, stream: _Watched, attempts: Retrying) -> httpx2.Response:
        """The answer, complete if it is short; raises what went wrong, or `TimedOut`."""
        self._request.stream = stream
        threading.Thread(target=self._run, daemon=True).start()
        try:
            while not self._done.wait(min(_LOOK, attempts.left) or 0.001):
                if self.sent - self._mark >= LEAST:
                    self._mark = self.sent
                    attempts.restart()
                if not attempts.left:
                    raise TimedOut("nothing moved", request=self._request)
        finally:
            self.is_given_up = not self._done.is_set()
            self._request.stream = stream.inner
        if self._error is not None:
            raise self._error
        assert self._response is not None
        return self._response

    def _run(self) -> None:
        try:
            response = self._inner.handle_request(self._request)
            # What a refusal says is short, too.
            is_short = self._whole or response.status_code >= 400
            self._response = self._read(response) if is_short else response
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        self._done.set()
        if self.is_given_up and self._response is not None:
            self._response.close()

    def _read(self, response: httpx2.Response) -> httpx2.Response:
        """The whole answer, if it has a sensible length."""
        parts, size = [], 0
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Unanswered("the answer is packed, though we asked for it plain")
            for part in response.iter_raw():
                parts.append(part)
                size += len(part)
                if size > LARGEST_ANSWER:
                    raise Unanswered(f"the answer is longer than {LARGEST_ANSWER >> 20} MiB")
                if self.is_given_up:
                    break
        finally:
            response.close()
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            content=b"".join(parts),
            extensions=response.extensions,
        )


class _Watched(httpx2.SyncByteStream):
    """A request's body that tells how much of it has gone."""

    def __init__(self, inner: Any, call: _Call, moved: Callable[[int], object] | None) -> None:
        self.inner, self._call, self._moved = inner, call, moved

    def __iter__(self) -> Iterator[bytes]:
        for part in self.inner:
            if self._call.is_given_up:
                raise httpx2.WriteError("given up")
            yield part
            self._call.sent += len(part)
            if self._moved is not None:
                self._moved(len(part))

    def close(self) -> None:
        self.inner.close()


def _left_untouched(error: httpx2.TransportError) -> bool:
    """Whether the request never reached the Hub."""
    kinds = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
    return isinstance(error, (*kinds, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError))


def _said(error: httpx2.TransportError) -> str:
    text = " ".join(str(error).split())[:160]
    if isinstance(error, httpx2.TimeoutException):
        return "the Hub did not answer in time"
    if isinstance(error, httpx2.ConnectError) and _is_tls(error):
        return f"no secure connection to the Hub ({text})"
    if isinstance(error, httpx2.ConnectError | httpx2.UnsupportedProtocol):
        return f"the Hub cannot be reached ({text})"
    return f"the Hub broke off the connection ({text})"


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _asks(status: int, asked: float | None) -> str:
    if status == 429:
        return "the Hub asks to slow down" + (f" for {asked:.0f} s" if asked else "")
    return f"the Hub failed with status {status}"


def _patient(response: httpx2.Response, left: float) -> httpx2.Response:
    """The answer without a wish to wait that its reader, the client, would follow for hours."""
    for name in ("retry-after", "ratelimit"):
        if (retry_after(response.headers.get("retry-after")) or 0) > left or name == "ratelimit":
            response.headers.pop(name, None)
    return response


def watched(
    pieces: Iterator[bytes], timeout: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[bytes]:
    """The pieces of a long answer, as long as they bring enough bytes within each timeout.

    Raises `TimedOut` for a trickle. A stall within one piece ends by the connection's own timeout.
    """
    began, size = clock(), 0
    for piece in pieces:
        yield piece
        size += len(piece)
        if size >= LEAST:
            began, size = clock(), 0
        elif clock() - began > timeout:
            raise TimedOut("only a trickle arrives")
