"""The small parts that a push relies on: remembering, hiding, knowing who may what."""

from __future__ import annotations

import http.server
import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
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

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")


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


def test_a_token_that_begins_with_another_is_hidden_whole() -> None:
    for token in ("plainword1", "plainword1andmore", "plainword"):
        remember(token)
    assert redacted("it is plainword1andmore.") == "it is (token)."


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
        (_who("write"), "them", "no member"),
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
    with pytest.raises(HubRefused, match="no member"):
        push([variant], "visitor", token=token, endpoint=hub.url)
    assert push([variant], USER, token=token, endpoint=hub.url).repositories[0].commit
