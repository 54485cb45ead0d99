"""Scripts of faults: as files, through the endpoint, for the owner only; and unreachable Hubs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner
from hub_client import MIB, commit, send
from huggingface_hub import HfApi
from pydantic import ValidationError
from unreachable import NO_SUCH_NAME, not_speaking_tls, refusing, untrusted

from fluxconv.commands.main import cli
from fluxconv.converters.errors import BadInput
from fluxconv.hub.rehearsal import RehearsalHub, start
from fluxconv.hub.rehearsal.faults import (
    ACTIONS,
    BrokenXet,
    Fault,
    LostReply,
    Script,
    ScriptError,
    Status,
    read_script,
)

pytestmark = pytest.mark.usefixtures("online_client")

SCRIPT = """
faults:
  - match: GET /api/whoami-v2
    times: null
    action: {do: status, status: 429, headers: {Retry-After: "9999"}}
  - match: POST /api/models/*/commit/*
    nth: 2
    action: {do: lost-reply, orderly: true}
"""


def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text(SCRIPT)
    first, second = read_script(tmp_path / "faults.yaml").faults
    headers = {"Retry-After": "9999"}
    assert first.action == Status(status=429, headers=headers)
    assert (first.nth, first.times) == (1, None)
    assert second == Fault(
        match="POST /api/models/*/commit/*", nth=2, action=LostReply(orderly=True)
    )


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_survives_the_way_to_the_server(name: str) -> None:
    required = {"status": 500} if name == "status" else {}
    script = Script.model_validate(
        {"faults": [{"match": "* *", "action": {"do": name, **required}}]}
    )
    assert Script.parse(script.model_dump_json()) == script
    assert isinstance(script.faults[0].action, ACTIONS[name])


def test_the_documentation_names_every_action_and_setting() -> None:
    text = (Path(__file__).parent.parent / "docs" / "rehearsal.md").read_text()
    for name, action in ACTIONS.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        settings = re.findall(r"`(\w+)`", row.split("|")[-2])
        assert {"do", *settings} == {*action.model_fields}
    script = Script.parse(text.partition("```yaml\n")[2].partition("```")[0])
    assert [fault.times for fault in script.faults] == [1, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("faults: [", "not YAML"),
        ("- x", "the whole"),
        ("faults: [{match: GET, action: {do: lost-reply}}]", "faults.0.match"),
        ("faults: [{match: GET /x, action: {do: explode}}]", "'do' is one of status, lost-reply"),
        ("faults: [{match: GET /x, nth: 0, action: {do: lost-reply}}]", "faults.0.nth"),
        ("faults: [{match: GET /x, action: {do: status, status: 99}}]", "status"),
        ("faults: [{match: GET /x, action: {do: trickle, speed: 9}}]", "speed"),
    ],
)
def test_a_script_that_is_wrong_is_refused_with_the_place(
    text: str, expected: str, hub: RehearsalHub, tmp_path: Path
) -> None:
    (tmp_path / "faults.yaml").write_text(text)
    with pytest.raises(ScriptError, match=rf"faults.yaml.*{expected}"):
        read_script(tmp_path / "faults.yaml")
    answer = send(hub, "POST", "/_admin/faults", content=text)
    assert answer.status_code == 400
    assert expected in answer.json()["error"]
    assert hub.admin.rules() == []


def test_a_pattern_needs_a_method_and_a_path() -> None:
    for bad in ("", "GET", "/x", "get /x", "GET x", "GET  /x"):
        with pytest.raises(ValidationError):
            Fault(match=bad, action=LostReply())


def test_only_the_owner_sets_faults_and_reads_the_record(hub: RehearsalHub) -> None:
    refused = [(hub.read_token, 403), (hub.visitor_token, 403), ("hf_unknown", 401), (None, 401)]
    for token, status in refused:
        headers = {"Authorization": f"Bearer {token}"} if token else {"Authorization": ""}
        for method, path in (
            ("GET", "faults"),
            ("POST", "faults"),
            ("DELETE", "faults"),
            ("GET", "requests"),
            ("DELETE", "requests"),
        ):
            answer = send(hub, method, f"/_admin/{path}", headers=headers)
            assert answer.status_code == status
    assert send(hub, "GET", "/_admin/faults").json() == []


def test_no_token_is_on_record(hub: RehearsalHub, api: HfApi) -> None:
    api.whoami()
    text = send(hub, "GET", "/_admin/requests").text
    assert "/api/whoami-v2" in text
    assert not any(token in text for token in hub.tokens.values())


def test_the_command_serves_a_script(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text("faults: [{match: GET /x, action: {do: explode}}]")
    arguments = ["hub", "serve", str(tmp_path / "hub"), "--faults", str(tmp_path / "faults.yaml")]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, BadInput)
    assert "faults.0.action: 'do' is one of status" in str(done.exception)
    assert not (tmp_path / "hub").exists()


def test_a_script_is_in_force_from_the_first_request_on(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text(SCRIPT)
    hub = start(tmp_path / "hub", faults=tmp_path / "faults.yaml")
    try:
        answer = send(hub, "GET", "/api/whoami-v2")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "9999")
        assert [rule["hits"] for rule in hub.admin.rules()] == [1, 0]
    finally:
        hub.stop()


def test_a_xet_store_cannot_be_written(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    hub.faults(Fault(match="GET /api/models/*/xet-write-token/*", action=BrokenXet()))
    with pytest.raises((OSError, RuntimeError)):
        commit(api, repo, {"w.bin": os.urandom(MIB)})
    hub.admin.clear()
    assert not api.file_exists(repo, "w.bin")
    commit(api, repo, {"w.bin": os.urandom(MIB)})


def test_a_xet_token_is_refused(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    action = Status(status=401, message="Invalid credentials in Authorization header")
    hub.faults(Fault(match="GET /api/models/*/xet-write-token/*", times=None, action=action))
    with pytest.raises((OSError, RuntimeError, PermissionError)):
        commit(api, repo, {"w.bin": os.urandom(MIB)})
    hub.admin.clear()


@pytest.mark.parametrize("reach", [refusing, not_speaking_tls])
def test_a_hub_cannot_be_reached(reach: Callable[[], AbstractContextManager[str]]) -> None:
    with reach() as url, pytest.raises(httpx2.ConnectError):
        HfApi(endpoint=url, token=False).model_info("a/b")


def test_a_hub_has_no_address() -> None:
    with pytest.raises(httpx2.ConnectError):
        HfApi(endpoint=NO_SUCH_NAME, token=False).model_info("a/b")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_hubs_certificate_is_not_trusted(tmp_path: Path) -> None:
    with untrusted(tmp_path) as url, pytest.raises(httpx2.ConnectError, match="CERTIFICATE"):
        HfApi(endpoint=url, token=False).model_info("a/b")
