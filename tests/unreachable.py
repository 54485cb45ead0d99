"""Hubs that cannot be reached, each in its own way; none of them needs a network."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

#: A name that no resolver knows (RFC 2606).
NO_SUCH_NAME = "https://hub.invalid"


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """An address at which nobody listens, and nobody else can meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextlib.contextmanager
def not_speaking_tls() -> Iterator[str]:
    """An ``https`` address at which somebody answers who has never heard of TLS."""
    with _answering(lambda line: line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        yield f"https://127.0.0.1:{port}"


@contextlib.contextmanager
def untrusted(folder: Path) -> Iterator[str]:
    """An ``https`` address with a certificate that nobody has signed; needs ``openssl``."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def greet(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as secured:
            secured.recv(1)

    with _answering(greet) as port:
        yield f"https://localhost:{port}"


@contextlib.contextmanager
def _answering(answer: object) -> Iterator[int]:
    assert callable(answer)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line, contextlib.suppress(OSError):
                    answer(line)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        # A closed listener does not wake who waits for it; a last caller does.
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
