"""HTTP over a plain socket: what a client library would hide."""

from __future__ import annotations

import socket
import time
from contextlib import closing

from fluxconv.hub.rehearsal import RehearsalHub


def connect(hub: RehearsalHub, timeout: float = 10.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", hub.port), timeout)


def request(hub: RehearsalHub, method: str, path: str, length: int = 0) -> bytes:
    """The head of a request, as the owner."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n"
        f"Authorization: Bearer {hub.token}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def arrivals(hub: RehearsalHub, head: bytes, seconds: float) -> list[tuple[float, bytes]]:
    """What comes back within so many seconds, each piece with its time."""
    began, pieces = time.monotonic(), []
    with closing(connect(hub)) as line:
        line.sendall(head)
        while (left := began + seconds - time.monotonic()) > 0:
            line.settimeout(left)
            try:
                piece = line.recv(1 << 16)
            except TimeoutError:
                break
            pieces.append((time.monotonic() - began, piece))
            if not piece:
                break
    return pieces
