"""The rehearsal Hub's process: starting, stopping, dying."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hub_client import MIB, api_of, commit, download, send, sha256
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from fluxconv.hub.rehearsal import (
    RehearsalHub,
    ServerError,
    create_app,
    running,
    serve,
    start,
)

pytestmark = pytest.mark.usefixtures("online_client")


def test_everything_is_still_there_after_a_restart_and_after_kill_9(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    data = os.urandom(2 * MIB)
    with running(folder, user="alice", organizations=["studio"]) as hub:
        api = api_of(hub)
        repo = api.create_repo("studio/kept", private=True).repo_id
        sha = commit(api, repo, {"w.bin": data, "a.txt": b"a"})
        api.create_tag(repo, tag="v1")
        slug = api.create_collection("Kept").slug
        api.add_collection_item(slug, repo, "model", note="kept")
        first = hub
    hub = start(folder, port=first.port)
    try:
        assert (hub.url, hub.token) == (first.url, first.token)
        hub.kill()
        (folder / "tmp" / "half-written").write_bytes(b"x")
        hub = start(folder, port=first.port)
        api = api_of(hub)
        assert not (folder / "tmp" / "half-written").exists()
        info = api.model_info(repo, revision="v1")
        assert (info.sha, info.private) == (sha, True)
        assert download(api, repo, "w.bin", tmp_path / "cache") == data
        assert api.get_collection(slug).items[0].note == "kept"
        commit(api, repo, {"b.txt": b"b"}, parent_commit=sha)
    finally:
        hub.kill()


def test_killed_in_the_middle_of_commits_it_serves_a_complete_state(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    hub = start(folder)
    repo, names = api_of(hub).create_repo("victim").repo_id, [f"{n}.bin" for n in range(3)]
    publish = (
        "import os, sys; from huggingface_hub import CommitOperationAdd, HfApi\n"
        "api = HfApi(endpoint=sys.argv[1], token=sys.argv[2])\n"
        "while True:\n"
        "    files = [CommitOperationAdd(name, os.urandom(200_000)) for name in sys.argv[4:]]\n"
        "    print(api.create_commit(sys.argv[3], files, commit_message='x').oid, flush=True)\n"
    )
    for delay in (0.05, 0.13, 0.21):
        command = [sys.executable, "-c", publish, hub.url, hub.token, repo, *names]
        environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        ) as publisher:
            assert publisher.stdout is not None
            acknowledged = [publisher.stdout.readline().decode().strip()]
            time.sleep(delay)
            hub.kill()
            publisher.kill()
            acknowledged += publisher.stdout.read().decode().split()
        hub = start(folder)
        api = api_of(hub)
        history = [c.commit_id for c in api.list_repo_commits(repo)]
        # What was acknowledged is there; at most the one under way came on top of it.
        assert acknowledged[-1] in history[:2]
        assert api.model_info(repo).sha == history[0]
        entries = api.get_paths_info(repo, names)
        assert len(entries) == len(names)
        for entry in entries:
            lfs = entry.lfs  # type: ignore[union-attr]
            assert lfs is not None
            content = send(hub, "GET", f"/{repo}/resolve/main/{entry.path}").content
            assert sha256(content) == lfs.sha256
    hub.stop()


def test_a_folder_has_one_server_and_belongs_to_the_rehearsal_hub(
    hub: RehearsalHub, tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match="already serving"):
        serve(hub.directory)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ServerError, match="not empty"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ServerError, match="cannot listen"):
        serve(tmp_path / "other", port=hub.port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_only_loopback_is_served_unless_asked_for(host: str, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="loopback"):
        serve(tmp_path / "hub", host=host)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from fluxconv.hub.rehearsal import start;"
        "print(start(Path(sys.argv[1])).port, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "hub")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        socket.create_connection(("127.0.0.1", port), 5).close()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its parent")


def test_middleware_sees_each_request_first(tmp_path: Path) -> None:
    seen: list[str] = []

    class Fault:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["raw_path"].decode())
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"later"})

    app = create_app(tmp_path / "hub", middleware=[Middleware(Fault)])
    sent: list[Any] = []

    async def request() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        path = "/api/models/a/b/revision/feature%2Fx"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode()}
        await app({**scope, "headers": [], "query_string": b""}, receive, send)

    asyncio.run(request())
    assert seen == ["/api/models/a/b/revision/feature%2Fx"]
    assert sent[0]["status"] == 503
