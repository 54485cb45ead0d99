"""The small parts that a push relies on: waiting, repeating, remembering, hiding."""

from __future__ import annotations

import http.server
import io
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx2
import pytest
from hub_client import USER

from fluxconv.converters import Variant
from fluxconv.converters.errors import HubRefused, HubUnreachable, OutputExists
from fluxconv.hub import push
from fluxconv.hub.account import read_account
from fluxconv.hub.collection import moves
from fluxconv.hub.journal import Journal, open_journal
from fluxconv.hub.redaction import redacted, redacting_output, remember
from fluxconv.hub.rehearsal import RehearsalHub
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


# Remembering -------------------------------------------------------------------------------------


def test_journal_outlives_a_power_cut_and_belongs_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with open_journal("http://hub", "a/b") as journal:
        journal.note("sent", contents=["one", "two"])
        with (
            pytest.raises(OutputExists, match="a/b: another push"),
            open_journal("http://hub", "a/b"),
        ):
            pass
        with open_journal("http://hub", "a/c") as other:
            assert not other.has_sent({"one"})
    (path,) = [p for p in tmp_path.rglob("*.jsonl") if p.stat().st_size]
    path.write_text(path.read_text() + '{"step": "com')
    with open_journal("http://hub", "a/b") as journal:
        assert journal.has_sent({"one"}) and not journal.has_sent({"one", "three"})
        journal.note("forgotten")
        assert not journal.has_sent({"one"})
        journal.close_chapter("finished", commit="c")
    assert json.loads(path.read_text())["commit"] == "c"
    assert Journal(path).last("sent") is None


def test_what_was_sent_long_ago_is_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    entry = {"step": "sent", "time": time.time() - 2 * 24 * 3600, "contents": ["one"]}
    path.write_text(json.dumps(entry) + "\n")
    assert not Journal(path).has_sent({"one"})


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        ("abc", "abc"),
        ("cba", "abc"),
        ("cxba", "abc"),
        ("xcyabz", "cba"),
        ("", "abc"),
        ("ab", "abc"),
    ],
)
def test_moves_bring_ours_in_order_and_leave_others(shown: str, wanted: str) -> None:
    now = list(shown)
    for name, place in moves(list(shown), list(wanted)):
        now.remove(name)
        now.insert(place, name)
    assert [each for each in now if each in wanted] == [w for w in wanted if w in shown]
    assert [i for i, each in enumerate(now) if each not in wanted] == [
        i for i, each in enumerate(shown) if each not in wanted
    ]


# Hiding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "hf_abcdefghijklmnop",
        "Authorization: Bearer something.else",
        "api_org_abcdefghijklmnop",
        "https://s3/x?X-Amz-Signature=abcdef0123456789&y=1",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    ],
)
def test_tokens_are_hidden_by_their_form(text: str) -> None:
    secret = text.split("=")[-2].split("&")[0] if "X-Amz" in text else text.split()[-1]
    hidden = redacted(f"so: {text} and on")
    assert secret.split("&")[0] not in hidden.replace("(token)", "") and "(token)" in hidden


def test_output_hides_our_token_whatever_it_looks_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember("a token of no known form")
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with redacting_output():
        sys.stdout.write("said: a token of no known form\n")
        click.echo("hf_abcdefghijkl", err=True)
    assert out.getvalue() == "said: (token)\n" and err.getvalue() == "(token)\n"
    assert sys.stdout is out


# Who may -----------------------------------------------------------------------------------------


def _who(role: str, scoped: Any = None, **org: str) -> dict[str, Any]:
    token = {"role": role, "fineGrained": scoped}
    orgs = [{"name": name, "roleInOrg": each} for name, each in org.items()]
    return {"name": "me", "orgs": orgs, "auth": {"accessToken": token}}


def _grant(name: str, *permissions: str) -> dict[str, Any]:
    return {"entity": {"type": "user", "name": name}, "permissions": list(permissions)}


@pytest.mark.parametrize(
    ("who", "namespace", "refusal"),
    [
        (_who("write"), "me", None),
        (_who("write"), "them", "not a member"),
        (_who("write", them="admin"), "them", None),
        (_who("write", them="read"), "them", "may only read there"),
        (_who("fineGrained", {"scoped": [_grant("me", "repo.write")]}), "me", None),
        (_who("fineGrained", {"scoped": [_grant("me/x", "repo.write")]}), "me", None),
        (_who("fineGrained", {"scoped": [_grant("me", "repo.read")]}), "me", "not made for it"),
        (_who("fineGrained", {"scoped": [_grant("me/y", "repo.write")]}), "me", "not made for it"),
        (_who("fineGrained", {"scoped": [], "global": ["repo.write"]}), "me", None),
        (_who("fineGrained", {"something": "new"}), "me", None),
        (_who("fineGrained"), "me", None),
    ],
)
def test_what_the_hub_says_of_a_token_is_understood(
    who: dict[str, Any], namespace: str, refusal: str | None
) -> None:
    user = read_account(who)
    if refusal is None:
        user.require_writer("http://hub", namespace, [f"{namespace}/x"])
    else:
        with pytest.raises(HubRefused, match=refusal):
            user.require_writer("http://hub", namespace, [f"{namespace}/x"])


@pytest.fixture
def plain_server() -> Iterator[int]:
    """Something that listens and speaks no TLS."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_failure_of_tls_is_one_sentence(variant: Variant, plain_server: int) -> None:
    with pytest.raises(HubUnreachable, match="no secure connection"):
        push([variant], USER, token="hf_secretsecret", endpoint=f"https://127.0.0.1:{plain_server}")


def test_fine_grained_token_without_the_right_is_refused(
    variant: Variant, hub: RehearsalHub
) -> None:
    token = hub.tokens["fine-grained"]
    with pytest.raises(HubRefused, match="not a member"):
        push([variant], "visitor", token=token, endpoint=hub.url)
    assert push([variant], USER, token=token, endpoint=hub.url).repositories[0].commit
