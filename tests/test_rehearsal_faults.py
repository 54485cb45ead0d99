"""Each fault of the rehearsal Hub really happens, as the client or the wire sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import psutil
import pytest
from hub_client import HTTP, MIB, commit, commits, download, lfs_batch, send, status_of
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory
from raw_http import connect, is_silent, opened, paced, read, read_head, request

from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.hub.rehearsal.faults import (
    Action,
    CutBody,
    Fault,
    HugeAnswer,
    LostReply,
    ResetUpload,
    SlowHeaders,
    StalledAnswer,
    StalledBody,
    StalledUpload,
    Status,
    Trickle,
    WrongEtag,
)

pytestmark = pytest.mark.usefixtures("online_client")


@pytest.fixture(autouse=True)
def no_fault_survives(hub: RehearsalHub) -> Iterator[None]:
    hub.admin.forget_requests()
    yield
    hub.admin.clear()


@pytest.fixture
def impatient() -> Iterator[None]:
    """The real client, waiting two seconds for a byte."""

    def factory() -> httpx2.Client:
        client = default_client_factory()
        client.timeout = httpx2.Timeout(2.0)
        return client

    set_client_factory(factory)
    yield
    set_client_factory(default_client_factory)


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


def on_info(hub: RehearsalHub, repo: str, action: Action) -> None:
    hub.faults(Fault(match=f"GET /api/models/{repo}", action=action))


# Answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 402, 403, 409, 429, 500, 502, 503, 504])
def test_a_status_is_answered_and_nothing_is_done(
    hub: RehearsalHub, api: HfApi, repo: str, status: int
) -> None:
    action = Status(status=status, message="By script", headers={"Retry-After": "9999"})
    with hub.faults(Fault(match="POST /api/models/*/commit/*", action=action)) as injected:
        with pytest.raises(HfHubHTTPError, match="By script") as caught:
            commit(api, repo, {"a.txt": b"a"})
        assert caught.value.response.status_code == status
        assert caught.value.response.headers["retry-after"] == "9999"
        assert injected.hits == 1
        assert commits(api, repo) == 1
        commit(api, repo, {"a.txt": b"a"})
    assert commits(api, repo) == 2


def test_a_fault_acts_on_the_requests_it_was_written_for(hub: RehearsalHub, repo: str) -> None:
    path = f"/api/models/{repo}"
    hub.faults(
        Fault(match="GET /api/models/*/revision/*", times=None, action=Status(status=500)),
        Fault(match=f"GET {path}", nth=2, times=2, action=Status(status=502)),
        Fault(match=f"HEAD|GET {path}?blobs=true", times=None, action=Status(status=503)),
    )
    assert [send(hub, "GET", path).status_code for _ in range(5)] == [200, 502, 502, 200, 200]
    assert send(hub, "GET", f"{path}?blobs=true").status_code == 503
    assert {send(hub, "GET", f"{path}/revision/main").status_code for _ in range(3)} == {500}
    seen = [(rule["seen"], rule["hits"]) for rule in hub.admin.rules()]
    assert seen == [(3, 3), (6, 2), (1, 1)]


def test_an_error_may_come_though_the_commit_was_made(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    action = Status(status=504, body="<html>Gateway Time-out</html>", applied=True)
    hub.faults(Fault(match="POST /api/models/*/commit/*", action=action))
    assert status_of(lambda: commit(api, repo, {"a.txt": b"a"})) == 504
    assert commits(api, repo) == 2


@pytest.mark.parametrize("orderly", [False, True])
def test_a_reply_is_lost_after_the_commit_was_made(
    hub: RehearsalHub, api: HfApi, repo: str, transport: str, orderly: bool
) -> None:
    hub.faults(Fault(match="POST /api/models/*/commit/*", action=LostReply(orderly=orderly)))
    expected = httpx2.RemoteProtocolError if orderly else httpx2.ReadError
    with pytest.raises(expected):
        commit(api, repo, {"w.bin": os.urandom(MIB)})
    assert commits(api, repo) == 2
    assert api.file_exists(repo, "w.bin")


def test_a_reply_is_lost_after_the_upload_was_kept(hub: RehearsalHub, repo: str) -> None:
    data = os.urandom(MIB)
    (answer,) = lfs_batch(hub, repo, data)
    hub.faults(Fault(match="PUT /_lfs/*", action=LostReply()))
    with pytest.raises(httpx2.ReadError):
        HTTP.put(answer["actions"]["upload"]["href"], content=data)
    (answer,) = lfs_batch(hub, repo, data)
    assert "actions" not in answer


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("applied", [False, True])
def test_an_answer_stalls(hub: RehearsalHub, api: HfApi, repo: str, applied: bool) -> None:
    action = StalledAnswer(applied=applied)
    hub.faults(Fault(match="POST /api/models/*/commit/*", action=action))
    with pytest.raises(httpx2.ReadTimeout):
        commit(api, repo, {"a.txt": b"a"})
    assert commits(api, repo) == 1 + applied


def test_an_answer_stalls_in_the_middle_of_its_body(hub: RehearsalHub, repo: str) -> None:
    on_info(hub, repo, StalledBody(after_bytes=20))
    with opened(hub, request(hub, "GET", f"/api/models/{repo}")) as line:
        assert read_head(line).startswith(b"HTTP/1.1 200 OK")
        read(line, 20)
        assert is_silent(line, 0.5)


def test_an_answer_breaks_off(
    hub: RehearsalHub, api: HfApi, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client writes pieces of this size, and resumes after the last that it wrote.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", MIB // 4)
    data = os.urandom(2 * MIB)
    commit(api, repo, {"w.bin": data})
    cut = hub.faults(Fault(match="GET /*/resolve/*", action=CutBody(after_bytes=MIB)))
    # The client goes on where it was cut off.
    assert download(api, repo, "w.bin", tmp_path) == data
    assert cut.hits == 1
    gets = [r for r in hub.admin.requests() if (r.method, "resolve" in r.target) == ("GET", True)]
    assert [r.status for r in gets] == [200, 206]


def test_an_answer_trickles(hub: RehearsalHub, repo: str) -> None:
    on_info(hub, repo, Trickle(seconds=0.1))
    with opened(hub, request(hub, "GET", f"/api/models/{repo}")) as line:
        assert read_head(line).startswith(b"HTTP/1.1 200 OK")
        assert paced(line, 6)[-1] > 0.4


def test_headers_never_end(hub: RehearsalHub, repo: str) -> None:
    on_info(hub, repo, SlowHeaders(seconds=0.02))
    with opened(hub, request(hub, "GET", f"/api/models/{repo}")) as line:
        assert read(line, 26) == b"HTTP/1.1 200 OK\r\nX-Slow: x"
        assert paced(line, 40)[-1] > 0.5
        assert read(line, 5) == b"xxxxx"


@pytest.mark.parametrize("announced", [False, True])
def test_an_answer_is_larger_than_memory(hub: RehearsalHub, repo: str, announced: bool) -> None:
    on_info(hub, repo, HugeAnswer(announced=announced))
    server = psutil.Process(hub.process.pid)
    before = server.memory_info().rss
    with HTTP.stream("GET", f"{hub.url}/api/models/{repo}") as answer:
        length = answer.headers.get("content-length")
        assert length == ("10000000000" if announced else None)
        got = 0
        for piece in answer.iter_raw():
            got += len(piece)
            if got > 200 * MIB:
                break
    assert server.memory_info().rss - before < 32 * MIB
    assert send(hub, "GET", f"/api/models/{repo}").status_code == 200


def test_an_answer_unpacks_to_more_than_memory(hub: RehearsalHub, repo: str) -> None:
    on_info(hub, repo, HugeAnswer(gzip=True))
    with HTTP.stream("GET", f"{hub.url}/api/models/{repo}") as answer:
        unpacked = 0
        for piece in answer.iter_bytes():
            unpacked += len(piece)
            if unpacked > 100 * MIB:
                break
        assert answer.num_bytes_downloaded < 4 * MIB


def test_a_huge_answer_is_json(hub: RehearsalHub, repo: str) -> None:
    for action in (HugeAnswer(size=3_000_000, announced=True), HugeAnswer(size=9, gzip=True)):
        on_info(hub, repo, action)
        answer = send(hub, "GET", f"/api/models/{repo}")
        assert len(answer.content) == action.size
        assert isinstance(answer.json(), list)


# Uploads -----------------------------------------------------------------------------------------


def test_the_line_breaks_in_the_middle_of_an_upload(hub: RehearsalHub, repo: str) -> None:
    data = os.urandom(4 * MIB)
    (answer,) = lfs_batch(hub, repo, data)
    path = answer["actions"]["upload"]["href"].removeprefix(hub.url)
    hub.faults(Fault(match="PUT /_lfs/*", action=ResetUpload(after_bytes=MIB)))
    with closing(connect(hub)) as line, pytest.raises((ConnectionResetError, BrokenPipeError)):
        line.sendall(request(hub, "PUT", path, len(data)))
        for start in range(0, len(data), MIB):
            line.sendall(data[start : start + MIB])
            time.sleep(0.05)
        line.recv(1)
    assert "actions" in lfs_batch(hub, repo, data)[0]
    assert not [*(hub.directory / "tmp").iterdir()]


def test_the_client_sends_again_what_the_broken_line_lost(
    hub: RehearsalHub, api: HfApi, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    data = os.urandom(4 * MIB)
    injected = hub.faults(Fault(match="PUT /_lfs/*", action=ResetUpload(after_bytes=MIB)))
    commit(api, repo, {"w.bin": data})
    assert injected.hits == 1
    first, second = [r for r in hub.admin.requests() if r.method == "PUT"]
    assert MIB <= first.received < 2 * MIB
    assert (first.status, first.fault, second.status) == (None, "reset-upload", 200)
    assert second.received == len(data)
    assert send(hub, "GET", f"/{repo}/resolve/main/w.bin").content == data


def test_an_upload_stalls(hub: RehearsalHub, repo: str) -> None:
    data = os.urandom(16 * MIB)
    (answer,) = lfs_batch(hub, repo, data)
    path = answer["actions"]["upload"]["href"].removeprefix(hub.url)
    hub.faults(Fault(match="PUT /_lfs/*", action=StalledUpload(after_bytes=MIB, seconds=5)))
    with closing(connect(hub, timeout=1)) as line, pytest.raises(TimeoutError):
        line.sendall(request(hub, "PUT", path, len(data)) + data)


def test_an_etag_is_wrong(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    commit(api, repo, {"w.bin": os.urandom(MIB)})
    hub.faults(Fault(match="HEAD /*/resolve/*", action=WrongEtag(etag='"wrong"')))
    answer = send(hub, "HEAD", f"/{repo}/resolve/main/w.bin")
    assert (answer.headers["etag"], answer.headers["x-linked-etag"]) == ('"wrong"', '"wrong"')
