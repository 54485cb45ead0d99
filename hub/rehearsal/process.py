"""The rehearsal Hub in a process of its own, as tests use it."""

from __future__ import annotations

import contextlib
import http.client
import select
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fluxconv.hub.rehearsal.accounts import DEFAULT_USER
from fluxconv.hub.rehearsal.faults import Fault, Injected
from fluxconv.hub.rehearsal.faults.remote import Admin
from fluxconv.hub.rehearsal.limits import Limits
from fluxconv.hub.rehearsal.server import ServerError, tokens

_MODULE = "fluxconv.hub.rehearsal"
# The first word that the process says.
READY, FAILED = "ready", "failed"
# Seconds after which a process that should end is ended.
_GRACE = 10


@dataclass
class RehearsalHub:
    """A rehearsal Hub that runs in a process of its own.

    ``hub.faults(Fault(...))`` makes it fail; ``hub.admin`` lifts faults and tells what was asked.
    """

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

    @property
    def admin(self) -> Admin:
        """The owner's side of it: faults and the record of requests."""
        return Admin(self.url, self.token)

    def faults(self, *faults: Fault) -> Injected:
        """Put faults in force; as a context manager, the result lifts them at the end."""
        return self.admin.inject(*faults)

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
    limits: Limits = Limits(),  # noqa: B008 - frozen
    faults: Path | None = None,
    timeout: float = 30.0,
) -> Iterator[RehearsalHub]:
    """A rehearsal Hub in another process: it answers when the block starts, is gone at its end.

    It also ends when this process dies, in whatever way: its standard input is then closed.
    """
    hub = start(
        directory,
        port=port,
        user=user,
        organizations=organizations,
        limits=limits,
        faults=faults,
        timeout=timeout,
    )
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
    limits: Limits = Limits(),  # noqa: B008 - frozen
    faults: Path | None = None,
    timeout: float = 30.0,
) -> RehearsalHub:
    """Start a rehearsal Hub in another process and wait until it answers; ``stop`` ends it."""
    command = [sys.executable, "-m", _MODULE, str(directory), "--port", str(port), "--user", user]
    for organization in organizations:
        command += ["--organization", organization]
    command += ["--multipart-above", str(limits.multipart_above)]
    command += ["--part-size", str(limits.part_size)]
    if limits.quota is not None:
        command += ["--quota", str(limits.quota)]
    if faults is not None:
        command += ["--faults", str(faults)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        url = _wait_for_address(process, timeout)
        _wait_for_answer(url, timeout)
        return RehearsalHub(directory, url, process, tokens(directory))
    except BaseException:
        _end(process, signal.SIGKILL)
        raise


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
            # A place at which no fault acts, and that no script counts; without a token it
            # answers with a refusal, which will do.
            connection.request("GET", "/_admin/faults")
            connection.getresponse()
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
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
