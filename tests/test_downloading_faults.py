"""A download survives what lines and servers do, and what hostile ones try."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi
from published import published

from fluxconv.converters import Variant, open_variant
from fluxconv.converters.errors import HubError, HubUnreachable, WrongContent
from fluxconv.hub import download
from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


class Line:
    """A line to the Hub that can be made bad. `seen` are the requests for contents: their path,
    range, and whether they brought a token."""

    def __init__(self, hub: RehearsalHub) -> None:
        self.hub, self.seen = hub, list[tuple[str, str | None, bool]]()
        self.breaks_after: list[int] = []
        self.trickles = self.stalls = False
        self.pause = 0.0
        self.ignores_ranges = False
        self.elsewhere: str | None = None
        self.spoils = False

    @contextmanager
    def open(self) -> Iterator[str]:
        line = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                line.answer(self)

            do_HEAD = do_POST = do_GET  # noqa: N815 - the library's names

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        is_content = "/resolve/" in call.path and WEIGHTS in call.path
        wanted = call.headers.get("Range")
        if is_content:
            self.seen.append((call.path, wanted, "Authorization" in call.headers))
            if self.elsewhere is not None:
                call.send_response(302)
                call.send_header("Location", self.elsewhere + call.path)
                call.send_header("Content-Length", "0")
                call.end_headers()
                return
        headers = {
            name: value
            for name, value in call.headers.items()
            if name.lower() not in ("host", "connection", "accept-encoding")
            and not (self.ignores_ranges and name.lower() == "range")
        }
        length = int(call.headers.get("Content-Length") or 0)
        answer = httpx2.request(
            call.command,
            self.hub.url + call.path,
            headers={**headers, "Accept-Encoding": "identity"},
            content=call.rfile.read(length) if length else None,
            timeout=30,
            trust_env=False,
        )
        body = answer.content
        if is_content and self.spoils:
            body = bytes([body[0] ^ 1]) + body[1:]
        call.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                call.send_header(name, value)
        call.end_headers()
        if call.command == "HEAD":
            return
        with suppress(OSError):  # the other end gave up
            self._send(call, body, is_content)

    def _send(self, call: BaseHTTPRequestHandler, body: bytes, is_content: bool) -> None:
        if is_content and self.breaks_after:
            call.wfile.write(body[: self.breaks_after.pop(0)])
            call.wfile.flush()
            call.close_connection = True
            call.connection.shutdown(socket.SHUT_RDWR)
            return
        if is_content and self.trickles:
            for byte in body:
                call.wfile.write(bytes([byte]))
                call.wfile.flush()
                time.sleep(0.1)
            return
        if is_content and self.stalls:
            call.wfile.write(body[:50_000])
            call.wfile.flush()
            time.sleep(30)
            return
        if is_content and self.pause:
            for start in range(0, len(body), 1 << 18):
                call.wfile.write(body[start : start + (1 << 18)])
                call.wfile.flush()
                time.sleep(self.pause)
            return
        call.wfile.write(body)


@pytest.fixture
def repository(variant: Variant, api: HfApi) -> str:
    """A repository that holds the test's own variant."""
    return published(api, variant)


def assert_whole(place: Path, variant: Variant) -> None:
    """Every file of the variant is there, and nothing half-made beside it."""
    for name in variant.manifest.files:
        assert (place / name).read_bytes() == (variant.root / name).read_bytes(), name
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_broken_connection_is_taken_up_where_it_broke(
    variant: Variant, repository: str, hub: RehearsalHub, tmp_path: Path
) -> None:
    line = Line(hub)
    line.breaks_after = [300_000, 300_000]
    with line.open() as url:
        (place,) = download(repository, tmp_path / "out", endpoint=url, token=hub.token)
    assert_whole(place, variant)
    ranges = [wanted for _, wanted, _ in line.seen]
    assert ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_a_server_without_ranges_sends_all_of_it_again(
    variant: Variant, repository: str, hub: RehearsalHub, tmp_path: Path
) -> None:
    line = Line(hub)
    line.breaks_after, line.ignores_ranges = [300_000], True
    with line.open() as url:
        (place,) = download(repository, tmp_path / "out", endpoint=url, token=hub.token)
    assert_whole(place, variant)


@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_download_goes_on(
    variant: Variant, repository: str, hub: RehearsalHub, tmp_path: Path, ended: signal.Signals
) -> None:
    line, out = Line(hub), tmp_path / "out"
    line.pause = 0.2
    with line.open() as url:
        command = [sys.executable, "-m", "fluxconv.commands", "download", repository, "-q"]
        running = subprocess.Popen(
            [*command, "-o", str(out)],
            env={**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": hub.token},
        )
        partial = out / f".{variant.name}.partial" / WEIGHTS
        _until(lambda: partial.is_file() and partial.stat().st_size > 500_000)
        os.kill(running.pid, ended)
        assert running.wait(20) == (130 if ended == signal.SIGINT else -ended)
        assert not (out / variant.name).exists()
        there = partial.stat().st_size
        line.pause, line.seen = 0.0, []
        (place,) = download(repository, out, endpoint=url, token=hub.token)
    assert_whole(place, variant)
    assert [wanted for _, wanted, _ in line.seen] == [f"bytes={there}-"]


def test_bytes_that_a_crash_spoiled_are_fetched_again(
    variant: Variant, repository: str, hub: RehearsalHub, tmp_path: Path
) -> None:
    partial = tmp_path / "out" / f".{variant.name}.partial"
    (partial / WEIGHTS).parent.mkdir(parents=True)
    (partial / WEIGHTS).write_bytes(bytes(400_000))  # as a file system may leave it
    (partial / "stray.bin").write_bytes(b"of another version")
    (place,) = download(repository, tmp_path / "out", endpoint=hub.url, token=hub.token)
    assert_whole(place, variant)
    assert not (place / "stray.bin").exists()


@pytest.mark.parametrize("fault", ["stalls", "trickles"])
def test_a_server_that_brings_nothing_is_given_up_in_time(
    repository: str, hub: RehearsalHub, tmp_path: Path, fault: str
) -> None:
    line = Line(hub)
    setattr(line, fault, True)
    with line.open() as url:
        began = time.monotonic()
        with pytest.raises(HubUnreachable, match=re.escape(repository)):
            download(repository, tmp_path / "out", endpoint=url, token=hub.token, timeout=3)
        assert time.monotonic() - began < 20
    assert [path.name[0] for path in (tmp_path / "out").iterdir()] == ["."]


def test_content_that_differs_is_never_put_in_place(
    repository: str, hub: RehearsalHub, tmp_path: Path
) -> None:
    line = Line(hub)
    line.spoils = True
    with line.open() as url, pytest.raises(WrongContent, match="not what the Hub says"):
        download(repository, tmp_path / "out", endpoint=url, token=hub.token)
    assert not (tmp_path / "out").exists()


def test_a_token_never_follows_a_redirect_to_another_host(
    variant: Variant, repository: str, hub: RehearsalHub, tmp_path: Path
) -> None:
    line, storage = Line(hub), Line(hub)
    with storage.open() as other, line.open() as url:
        line.elsewhere = other
        (place,) = download(repository, tmp_path / "out", endpoint=url, token=hub.token)
    assert_whole(place, variant)
    assert [token for *_, token in line.seen] == [True]
    assert [token for *_, token in storage.seen] == [False]


def test_a_harmed_download_is_repaired_and_no_more_than_that_is_fetched(
    variant: Variant, repository: str, hub: RehearsalHub, tmp_path: Path
) -> None:
    (place,) = download(repository, tmp_path / "out", endpoint=hub.url, token=hub.token)
    (place / "mine.txt").write_text("mine")
    (place / "README.md").write_text("my own words")
    with (place / WEIGHTS).open("r+b") as stream:
        stream.seek(100_000)
        stream.write(b"harm")
    (place / "scheduler" / "scheduler_config.json").unlink()
    kept = (place / "vae" / "config.json").stat().st_ino
    line = Line(hub)
    with line.open() as url:
        assert download(repository, tmp_path / "out", endpoint=url, token=hub.token) == (place,)
    assert len(line.seen) == 1
    assert_whole(place, variant)
    assert (place / "mine.txt").read_text() == "mine"
    assert (place / "README.md").read_text() == "my own words"
    assert (place / "vae" / "config.json").stat().st_ino == kept


@pytest.mark.parametrize(
    "hostile", [".git/config", "a/../../b", "transformer/config.json/x", "x" * 300, "a\u202eb"]
)
def test_hostile_names_reach_no_place(
    variant: Variant, api: HfApi, repository: str, hub: RehearsalHub, tmp_path: Path, hostile: str
) -> None:
    manifest: dict[str, Any] = json.loads((variant.root / "fluxconv.json").read_text())
    manifest["files"][hostile] = {"size": 1, "sha256": "0" * 64}
    api.upload_file(
        path_or_fileobj=json.dumps(manifest).encode(),
        path_in_repo="fluxconv.json",
        repo_id=repository,
    )
    with pytest.raises(HubError):
        download(repository, tmp_path / "out", endpoint=hub.url, token=hub.token)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def _until(holds: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_was_downloaded_opens(
    variant: Variant, repository: str, hub: RehearsalHub, tmp_path: Path
) -> None:
    (place,) = download(repository, tmp_path, endpoint=hub.url, token=hub.token)
    assert open_variant(place).manifest == variant.manifest
