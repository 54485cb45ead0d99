"""Faults that deceive or harm, and what the rehearsal Hub itself survives of them all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from hub_client import HTTP, MIB, commit, send, sha256, status_of
from huggingface_hub import HfApi, constants
from raw_http import connect, request

from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.hub.rehearsal.faults import (
    Action,
    CorruptedFile,
    ExpiredToken,
    Fault,
    HostileNames,
    HugeAnswer,
    Redirect,
    SlowHeaders,
    SneakedCommit,
    StalledAnswer,
    StalledBody,
    StalledUpload,
    Trickle,
)

pytestmark = pytest.mark.usefixtures("online_client")


@pytest.fixture(autouse=True)
def no_fault_survives(hub: RehearsalHub) -> Iterator[None]:
    hub.admin.forget_requests()
    yield
    hub.admin.clear()


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


def on_info(hub: RehearsalHub, repo: str, action: Action) -> None:
    hub.faults(Fault(match=f"GET /api/models/{repo}", action=action))


def test_a_redirect_leads_to_another_host_and_the_record_tells_of_the_token(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    on_info(hub, repo, Redirect())
    with pytest.raises(KeyError):
        api.model_info(repo)  # what answers there is no model
    first, second = [r for r in hub.admin.requests() if repo in r.target][-2:]
    assert (first.fault, first.status, first.token) == ("redirect", 302, "write")
    assert second.host == f"localhost:{hub.port}"
    assert not second.authorized  # the client leaves it behind
    # A careless one would be seen.
    headers = {"Authorization": f"Bearer {hub.token}"}
    HTTP.get(f"http://localhost:{hub.port}/_elsewhere/x", headers=headers)
    assert (hub.admin.requests()[-1].authorized, hub.admin.requests()[-1].token) == (True, "write")


def test_a_listing_names_files_outside(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    names = HostileNames().names
    hub.faults(
        Fault(match="GET /api/models/*/tree/*", action=HostileNames()),
        Fault(match=f"GET /api/models/{repo}", action=HostileNames(names=("../x",))),
    )
    assert {e.path for e in api.list_repo_tree(repo)} == {".gitattributes", *names}
    siblings = api.model_info(repo).siblings or []
    assert [s.rfilename for s in siblings] == [".gitattributes", "../x"]


def test_a_token_expires_after_so_many_requests(
    hub: RehearsalHub, api: HfApi, anonymous: HfApi, repo: str
) -> None:
    with hub.faults(Fault(match=f"* /api/models/{repo}*", nth=3, action=ExpiredToken())):
        assert api.model_info(repo).sha
        assert api.model_info(repo).sha
        for _ in range(2):
            assert status_of(lambda: api.model_info(repo)) == 401
        assert status_of(api.whoami) == 401
        assert anonymous.model_info(repo).sha
    assert api.whoami()


def test_somebody_commits_between_our_reading_and_our_commit(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    head = api.model_info(repo).sha
    action = SneakedCommit(files={"theirs.txt": "t"}, deleted=(".gitattributes",))
    hub.faults(Fault(match="POST /api/models/*/commit/*", action=action))
    assert status_of(lambda: commit(api, repo, {"a.txt": b"a"}, parent_commit=head)) == 412
    assert api.list_repo_files(repo) == ["theirs.txt"]
    assert api.list_repo_commits(repo)[0].authors == ["somebody-else"]


def test_a_corrupted_file_is_seen_in_the_listing(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    data = os.urandom(MIB)
    action = CorruptedFile(path="*.bin")
    hub.faults(Fault(match="POST /api/models/*/commit/*", action=action))
    commit(api, repo, {"w.bin": data, "a.txt": b"a"})
    stored = send(hub, "GET", f"/{repo}/resolve/main/w.bin").content
    assert len(stored) == MIB
    assert stored != data
    entries = {e.path: e for e in api.get_paths_info(repo, ["w.bin", "a.txt"])}
    assert entries["w.bin"].lfs.sha256 == sha256(stored)  # type: ignore[union-attr]
    assert send(hub, "GET", f"/{repo}/resolve/main/a.txt").content == b"a"
    commit(api, repo, {"w.bin": data})
    assert send(hub, "GET", f"/{repo}/resolve/main/w.bin").content == data


def test_a_silently_corrupted_file_is_seen_by_its_bytes_only(
    hub: RehearsalHub, api: HfApi, repo: str, transport: str
) -> None:
    data = os.urandom(MIB)
    other = api.create_repo(f"{repo}-2").repo_id
    commit(api, other, {"w.bin": data})
    action = CorruptedFile(path="w.bin", listed=False)
    hub.faults(Fault(match="POST /api/models/*/commit/*", action=action))
    commit(api, repo, {"w.bin": data})
    (entry,) = api.get_paths_info(repo, ["w.bin"])
    assert entry.lfs.sha256 == sha256(data)  # type: ignore[union-attr]
    assert send(hub, "GET", f"/{repo}/resolve/main/w.bin").content != data
    assert send(hub, "GET", f"/{other}/resolve/main/w.bin").content == data
    # Sent again, it is whole again.
    commit(api, repo, {"again.bin": data})
    assert send(hub, "GET", f"/{repo}/resolve/main/w.bin").content == data


def test_a_fault_that_does_not_fit_says_so(hub: RehearsalHub) -> None:
    hub.faults(Fault(match="GET /api/whoami-v2", action=SneakedCommit()))
    answer = send(hub, "GET", "/api/whoami-v2")
    assert answer.status_code == 500
    assert "names no repository" in answer.json()["error"]


def test_the_server_stops_though_clients_hang_in_faults(tmp_path: Path) -> None:
    with running(tmp_path / "hub") as hub:
        hub.faults(Fault(match="GET /*", times=None, action=StalledAnswer()))
        hub.faults(Fault(match="PUT /*", times=None, action=StalledUpload(after_bytes=1)))
        lines = [connect(hub) for _ in range(6)]
        for number, line in enumerate(lines):
            method = "GET" if number % 2 else "PUT"
            line.sendall(request(hub, method, "/x", 0 if number % 2 else 9) + b"x")
        time.sleep(0.3)
        began = time.monotonic()
        hub.stop()
        assert time.monotonic() - began < 8
        assert hub.process.returncode in (0, -signal.SIGTERM)
        for line in lines:
            line.close()


def test_the_server_goes_on_when_clients_leave(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    server = psutil.Process(hub.process.pid)
    path = f"/api/models/{repo}"
    for action in (StalledAnswer(), StalledBody(), Trickle(), SlowHeaders(), HugeAnswer()):
        hub.faults(Fault(match=f"GET {path}", times=8, action=action))
        for _ in range(8):
            with closing(connect(hub)) as line:
                line.sendall(request(hub, "GET", path))
                time.sleep(0.01)
        hub.admin.clear()
    deadline = time.monotonic() + 10
    while len(server.net_connections("tcp")) > 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(server.net_connections("tcp")) <= 8
    # Worker threads are a pool of 40 at most, beside those of the interpreter.
    assert server.num_threads() < 60
    commit(api, repo, {"a.txt": b"a"})
