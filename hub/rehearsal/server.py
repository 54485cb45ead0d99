"""Serving the rehearsal Hub in this process.

It listens on loopback only, for three reasons: its tokens travel unencrypted; the token that it
prints may write and delete everything in its folder; and it tells Xet clients to write into that
folder directly, which only makes sense on the same machine. Any other address has to be asked
for with ``allow_remote``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.middleware import Middleware

from fluxconv.hub.rehearsal.accounts import DEFAULT_USER, Accounts
from fluxconv.hub.rehearsal.app import create_app
from fluxconv.hub.rehearsal.connection import Protocol
from fluxconv.hub.rehearsal.disk import Disk
from fluxconv.hub.rehearsal.faults import Fault
from fluxconv.hub.rehearsal.faults.admin import admin_app
from fluxconv.hub.rehearsal.faults.injection import Faults, Injection
from fluxconv.hub.rehearsal.limits import Limits
from fluxconv.hub.rehearsal.store import Store, StoreError

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
    limits: Limits = Limits(),  # noqa: B008 - frozen
    faults: Sequence[Fault] = (),
    allow_remote: bool = False,
    run: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Serve a folder until the process is interrupted; port 0 takes a free one.

    ``ready`` is called with the address as soon as it answers. ``user`` and ``organizations``
    (``NAME`` or ``NAME:ROLE``) name the first accounts of a new folder; an existing one keeps its
    own. ``faults`` are in force from the first request on. ``run`` looks at the run of a recipe,
    as ``fluxconv status --json`` prints it, for a page of its own.
    """
    listener = _listen(host, port, allow_remote)
    with listener, _open_store(directory, user, organizations, limits) as store:
        state = Faults()
        state.add(faults)
        injection = Middleware(Injection, store=store, faults=state, admin=admin_app(store, state))
        config = uvicorn.Config(
            create_app(store, middleware=[injection], run=run),
            http=Protocol,
            ws="none",
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
def _open_store(
    directory: Path, user: str, organizations: Sequence[str], limits: Limits
) -> Iterator[Store]:
    try:
        store = Store(directory, user=user, organizations=organizations, limits=limits)
    except StoreError as error:
        raise ServerError(str(error)) from None
    except OSError as error:
        raise ServerError(f"{directory}: cannot be used: {error.strerror}") from None
    try:
        yield store
    finally:
        store.close()
