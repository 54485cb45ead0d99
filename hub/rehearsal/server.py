"""Starting and stopping the rehearsal Hub.

It listens on loopback only, for three reasons: its tokens travel unencrypted; the token that it
prints may write and delete everything in its folder; and it tells Xet clients to write into that
folder directly, which only makes sense on the same machine. Any other address has to be asked
for with ``allow_remote``.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.middleware import Middleware

from fluxconv.hub.rehearsal.accounts import DEFAULT_USER, Accounts
from fluxconv.hub.rehearsal.app import create_app
from fluxconv.hub.rehearsal.disk import Disk
from fluxconv.hub.rehearsal.store import Store, StoreError

_MODULE = "fluxconv.hub.rehearsal"
# The first word that the process says.
READY, FAILED = "ready", "failed"
# Seconds that answers under way may take once a stop was asked for.
_GRACE = 3


class ServerError(Exception):
    """The server cannot be started; the message says why."""


def serve(
    directory: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[str], None] | None = None,
    *,
    user: str = DEFAULT_USER,
    organizations: Sequence[str] = (),
    middleware: Sequence[Middleware] = (),
    allow_remote: bool = False,
) -> None:
    """Serve a folder until the process is interrupted; port 0 takes a free one.

    ``ready`` is called with the address as soon as it answers. ``user`` and ``organizations``
    name the first accounts of a new folder; an existing one keeps its own.
    """
    listener = _listen(host, port, allow_remote)
    with listener, _open_store(directory, user, organizations) as store:
        config = uvicorn.Config(
            create_app(store, middleware=middleware),
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
        )
        # Ctrl-C is how a server ends.
        with contextlib.suppress(KeyboardInterrupt):
            _Server(config, _address(listener), ready).run([listener])


def tokens(directory: Path) -> dict[str, str]:
    """The tokens of a folder that has been served: ``write``, ``read``, ``visitor``."""
    return Accounts(Disk(directory)).tokens()


@dataclass
class RehearsalHub:
    """A rehearsal Hub that runs in a process of its own."""

    directory: Path
    url: str
    process: subprocess.Popen[bytes]
    tokens: dict[str, str] = field(repr=False)

    @property
    def token(self) -> str:
        """The token of the first user, with write role."""
        return self.tokens["write"]

    @property
    def read_token(self) -> str:
        """The first user's token that may only read."""
        return self.tokens["read"]

    @property
    def visitor_token(self) -> str:
        """The token of another user, who is in no organisation."""
        return self.tokens["visitor"]

    @property
    def port(self) -> int:
        """Where it listens; give it to the next ``start`` to keep the address."""
        return urllib.parse.urlsplit(self.url).port or 0

    def stop(self) -> None:
        """Let answers under way finish, then end the process."""
        _end(self.process, signal.SIGTERM)

    def kill(self) -> None:
        """End the process as ``kill -9`` does."""
        _end(self.process, signal.SIGKILL)


@contextlib.contextmanager
def running(
    directory: Path,
    *,
    port: int = 0,
    user: str = DEFAULT_USER,
    organizations: Sequence[str] = (),
    timeout: float = 30.0,
) -> Iterator[RehearsalHub]:
    """A rehearsal Hub in another process: it answers when the block starts, is gone at its end.

    It also ends when this process dies, in whatever way: its standard input is then closed.
    """
    hub = start(directory, port=port, user=user, organizations=organizations, timeout=timeout)
    try:
        yield hub
    finally:
        hub.stop()


def start(
    directory: Path,
    *,
    port: int = 0,
    user: str = DEFAULT_USER,
    organizations: Sequence[str] = (),
    timeout: float = 30.0,
) -> RehearsalHub:
    """Start a rehearsal Hub in another process and wait until it answers; ``stop`` ends it."""
    command = [sys.executable, "-m", _MODULE, str(directory), "--port", str(port), "--user", user]
    for organization in organizations:
        command += ["--organization", organization]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        url = _wait_for_address(process, timeout)
        _wait_for_answer(url, timeout)
        return RehearsalHub(directory, url, process, tokens(directory))
    except BaseException:
        _end(process, signal.SIGKILL)
        raise


class _Server(uvicorn.Server):
    """Tells when it has started to answer."""

    def __init__(
        self, config: uvicorn.Config, address: str, ready: Callable[[str], None] | None
    ) -> None:
        super().__init__(config)
        self._address = address
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None:
            self._ready(self._address)


def _listen(host: str, port: int, allow_remote: bool) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ServerError(f"{host} is not an address to listen on: {error}") from None
    if not allow_remote and not ipaddress.ip_address(address[0]).is_loopback:
        raise ServerError(
            f"{host} can be reached from other machines; the rehearsal Hub listens on loopback"
            " (127.0.0.1 or ::1) only"
        )
    # With the protocol left at 0, asyncio does not see that this is TCP and leaves Nagle's
    # algorithm on: 40 ms for each answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A server that was killed may be started again at once on the same port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ServerError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _open_store(directory: Path, user: str, organizations: Sequence[str]) -> Iterator[Store]:
    try:
        store = Store(directory, user=user, organizations=organizations)
    except StoreError as error:
        raise ServerError(str(error)) from None
    except OSError as error:
        raise ServerError(f"{directory}: cannot be used: {error.strerror}") from None
    try:
        yield store
    finally:
        store.close()


def _wait_for_address(process: subprocess.Popen[bytes], timeout: float) -> str:
    stdout = process.stdout
    if stdout is None or not select.select([stdout], [], [], timeout)[0]:
        raise ServerError(f"the rehearsal Hub did not start within {timeout:.0f} s")
    state, _, rest = stdout.readline().decode().strip().partition(" ")
    if state != READY:
        raise ServerError(rest or "the rehearsal Hub ended while it was starting")
    return rest


def _wait_for_answer(url: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        # Not urllib: its proxies from the environment have no business on loopback.
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=timeout)
        try:
            connection.request("GET", "/api/models?limit=1")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise ServerError(f"the rehearsal Hub at {url} does not answer")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(_GRACE + 7)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
