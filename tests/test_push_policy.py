"""The small parts that a push relies on: waiting and repeating."""

from __future__ import annotations

import http.server
import itertools
import threading

import httpx2
import pytest

from fluxconv.hub.retrying import Repeat, Retrying, may_repeat, repeat_of, retry_after
from fluxconv.hub.transport import Bounded, TimedOut, Unanswered, watched

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)

    def retrying(self, timeout: float, chance: float = 1.0) -> Retrying:
        return Retrying(timeout, clock=lambda: self.now, sleep=self.sleep, chance=lambda: chance)


# Waiting -----------------------------------------------------------------------------------------


def test_pauses_grow_to_a_limit_and_end_before_the_deadline() -> None:
    clock = Clock()
    attempts = clock.retrying(40)
    while attempts.wait():
        pass
    assert clock.slept == [0.5, 1, 2, 4, 8, 8, 8, 8]
    assert clock.now < attempts.deadline


def test_pauses_are_spread() -> None:
    for chance, pause in ((0.0, 0.25), (1.0, 0.5)):
        clock = Clock()
        assert clock.retrying(40, chance).wait()
        assert clock.slept == [pause]


def test_retry_after_is_obeyed_or_the_end() -> None:
    clock = Clock()
    attempts = clock.retrying(40)
    assert attempts.wait(20) and clock.slept == [20]
    assert not attempts.wait(9999)
    assert clock.slept == [20]


def test_deadline_counts_anew_when_something_moves() -> None:
    clock = Clock()
    attempts = clock.retrying(10)
    assert attempts.wait(9) and attempts.left == 1
    attempts.restart()
    assert attempts.left == 10 and attempts.wait(9)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120.0), (" 3 ", 3.0), ("", None), (None, None), ("-1", None), ("9" * 40, None)],
)
def test_retry_after_is_read(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds
    assert retry_after("Wed, 21 Oct 2099 07:28:00 GMT") is None


# Repeating ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "repeat"),
    [
        ("GET", "/api/models/a/b/tree/main", Repeat.ALWAYS),
        ("POST", "/api/models/a/b/preupload/main", Repeat.ALWAYS),
        ("POST", "/a/b.git/info/lfs/objects/batch", Repeat.ALWAYS),
        ("PUT", "/api/models/a/b/settings", Repeat.ALWAYS),
        ("PUT", "/somewhere/else?signature=x", Repeat.CALLER),
        ("POST", "/api/models/a/b/commit/main", Repeat.UNDONE),
        ("POST", "/api/models/a/b/tag/main", Repeat.UNDONE),
        ("POST", "/api/repos/create", Repeat.UNDONE),
        ("POST", "/api/collections", Repeat.UNDONE),
        ("POST", "/api/collections/a/b/items", Repeat.UNDONE),
        ("PATCH", "/api/collections/a/b", Repeat.UNDONE),
        ("DELETE", "/api/anything", Repeat.UNDONE),
    ],
)
def test_what_may_be_sent_twice(method: str, path: str, repeat: Repeat) -> None:
    assert repeat_of(method, path) is repeat
    assert may_repeat(repeat, undone=False) is (repeat is Repeat.ALWAYS)
    assert may_repeat(repeat, undone=True) is (repeat is not Repeat.CALLER)


class Scripted(httpx2.BaseTransport):
    """Answers with one status after the other, and counts."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers, self.asked = list(answers), 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.asked += 1
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer, stream=httpx2.ByteStream(b"{}"))


def _ask(inner: httpx2.BaseTransport, method: str, path: str, timeout: float = 2) -> int:
    with httpx2.Client(transport=Bounded(inner, timeout)) as client:
        return client.request(method, f"http://hub{path}").status_code


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_reading_is_repeated_after_every_passing_failure(status: int) -> None:
    inner = Scripted(status, 200)
    assert _ask(inner, "GET", "/api/models/a/b") == 200
    assert inner.asked == 2


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 412])
def test_refusals_are_not_repeated(status: int) -> None:
    inner = Scripted(status)
    assert _ask(inner, "GET", "/api/models/a/b") == status
    assert inner.asked == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_commit_is_not_repeated_blindly(status: int) -> None:
    inner = Scripted(status, 200)
    with pytest.raises(Unanswered) as caught:
        _ask(inner, "POST", "/api/models/a/b/commit/main")
    assert inner.asked == 1 and caught.value.is_unclear and caught.value.status == status


def test_commit_is_repeated_after_429() -> None:
    inner = Scripted(429, 200)
    assert _ask(inner, "POST", "/api/models/a/b/commit/main") == 200
    assert inner.asked == 2


def test_line_that_never_stood_is_given_up_at_once_and_one_that_did_is_not() -> None:
    gone = httpx2.ConnectError("no route")
    inner = Scripted(gone)
    with pytest.raises(Unanswered, match="cannot be reached"):
        _ask(inner, "GET", "/api/models/a/b")
    assert inner.asked == 1
    inner = Scripted(200, gone, 200)
    with httpx2.Client(transport=Bounded(inner, 5)) as client:
        for _ in range(2):
            assert client.post("http://hub/api/models/a/b/commit/main").status_code == 200
    assert inner.asked == 3


def test_token_goes_to_the_hub_only() -> None:
    seen: list[tuple[str, bool]] = []

    class Noting(Scripted):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            seen.append((request.url.host, "authorization" in request.headers))
            return super().handle_request(request)

    transport = Bounded(Noting(200), 2, home="https://hub:8000/some/path")
    with httpx2.Client(transport=transport, headers={"Authorization": "Bearer x"}) as client:
        for address in ("https://hub:8000/api/x", "https://elsewhere:8000/x", "https://hub/x"):
            client.post(address)
    assert seen == [("hub", True), ("elsewhere", False), ("hub", False)]


def test_trickle_of_a_long_answer_ends() -> None:
    times = itertools.count()
    pieces = watched(iter([b"x"] * 100), 10, clock=lambda: float(next(times)))
    with pytest.raises(TimedOut):
        list(pieces)
    times = itertools.count()
    large = [b"x" * (1 << 16)] * 100
    assert list(watched(iter(large), 10, clock=lambda: float(next(times)))) == large


def test_packed_answer_is_not_unpacked() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(b"\x1f\x8b")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    transport = Bounded(httpx2.HTTPTransport(), 5)
    with (
        httpx2.Client(transport=transport, trust_env=False) as client,
        server,
        pytest.raises(Unanswered, match="packed"),
    ):
        client.get(f"http://127.0.0.1:{server.server_port}/api/models")
