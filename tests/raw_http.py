"""HTTP over a plain socket: what a client library would hide."""

from __future__ import annotations

import socket
import time
from contextlib import closing, suppress

from fluxconv.hub.rehearsal import RehearsalHub


def connect(hub: RehearsalHub, timeout: float = 10.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", hub.port), timeout)


def request(hub: RehearsalHub, method: str, path: str, length: int = 0) -> bytes:
    """The head of a request, as the owner."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n"
        f"Authorization: Bearer {hub.token}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def read_head(line: socket.socket) -> bytes:
    """The status and the headers of an answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read(line, 1)
    return head


def read(line: socket.socket, count: int) -> bytes:
    """Exactly so many bytes, however long they take."""
    data = b""
    while len(data) < count:
        piece = line.recv(count - len(data))
        assert piece, "the line was closed"
        data += piece
    return data


def is_silent(line: socket.socket, seconds: float) -> bool:
    """Whether nothing comes for so long, not even the end."""
    line.settimeout(seconds)
    with suppress(TimeoutError):
        line.recv(1)
        return False
    return True


def paced(line: socket.socket, count: int) -> list[float]:
    """When each of so many bytes arrived, in seconds after the first."""
    times = []
    for _ in range(count):
        read(line, 1)
        times.append(time.monotonic())
    return [moment - times[0] for moment in times]


def opened(hub: RehearsalHub, head: bytes) -> closing[socket.socket]:
    """A connection on which a request was sent."""
    line = connect(hub, timeout=60)
    line.sendall(head)
    return closing(line)
