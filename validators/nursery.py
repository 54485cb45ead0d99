"""Fresh processes that have already imported the libraries, which takes longer than most layers.

A nursery is a process that imports them and nothing else, and forks: each child starts with no more
than the libraries in it, whatever other children have done. Not for a GPU: what a library asked of
CUDA before a fork is broken after it.

A request is one message on the nursery's socket: JSON with the child's environment and folder and
what it shall run, and four file descriptors: stdin, stdout and stderr of the child, and a pipe that
the nursery writes the child's number to, and at its end the exit code and its peak memory. A fifth
one is the socket itself, for a child that will ask the same nursery for processes of its own.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from fluxconv.converters.threads import heed_limit

_MOST = 1 << 20  # bytes of a request
_WORKER = "fluxconv.validators.worker"


class Child:
    """A process that a nursery forked; what `Worker` needs of a `Popen`."""

    def __init__(
        self,
        stdin: IO[str],
        stdout: IO[str],
        status: IO[str],
        ended: Callable[[int], None] = lambda peak: None,
    ) -> None:
        self.stdin, self.stdout, self._status, self._ended = stdin, stdout, status, ended
        first = status.readline()
        if not first:
            raise OSError("the nursery is gone")
        self.pid = int(first)
        self._code: int | None = None

    def wait(self) -> int:
        """The exit code, as `Popen` has it: negative for a signal."""
        if self._code is None:
            last = self._status.readline().split()
            self._code = int(last[0]) if last else -signal.SIGKILL
            if last:
                self._ended(int(last[1]))
        return self._code

    def kill(self) -> None:
        """End it at once, and wait for that."""
        for stream in (self.stdin, self.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        if self._code is None:
            with suppress(ProcessLookupError):  # between its end and our being told
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self._status.close()


class Nursery:
    """Started by the first child, or before; ends with this process.

    `peak` is the largest peak of resident memory of all children that ended, in bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ours: socket.socket | None = None
        self.peak = 0

    def start(self, environment: Mapping[str, str] = os.environ) -> None:
        """Have it import the libraries while there is something else to do."""
        with self._lock:
            self._socket(environment)

    def adopt(self, other: socket.socket) -> None:
        """Take children from a nursery that another process has started."""
        self._ours = other

    def child(
        self,
        stderr: IO[bytes],
        environment: Mapping[str, str],
        *,
        run: str = _WORKER,
        sharing: bool = False,
    ) -> Child:
        """A new process that runs `main` of the module `run`; raises `OSError` if there can be
        none. One that is `sharing` has this nursery for its own."""
        ends = [os.pipe() for _ in range(3)]
        (in_read, in_write), (out_read, out_write), (status_read, status_write) = ends
        request = json.dumps(
            {"environment": dict(environment), "folder": str(Path.cwd()), "run": run}
        ).encode()
        try:
            with self._lock:
                ours = self._socket(environment)
                fds = [in_read, out_write, stderr.fileno(), status_write]
                fds += [ours.fileno()] if sharing else []
                socket.send_fds(ours, [request], fds)
        finally:
            for given in (in_read, out_write, status_write):
                os.close(given)
        return Child(
            os.fdopen(in_write, "w", encoding="utf-8"),
            os.fdopen(out_read, encoding="utf-8"),
            os.fdopen(status_read, encoding="ascii"),
            self._note,
        )

    def stop(self) -> None:
        """End it; its children see the end of their stdin when we do."""
        if self._ours:
            self._ours.close()
            self._ours = None
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _note(self, peak: int) -> None:
        self.peak = max(self.peak, peak)

    def _socket(self, environment: Mapping[str, str]) -> socket.socket:
        if self._process and self._process.poll() is not None:
            self.stop()
        if not self._ours:
            self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._process = subprocess.Popen(
                # -P: a file in the user's folder must not stand in for a library of its name.
                [sys.executable, "-P", "-m", "fluxconv.validators.nursery", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=dict(environment),
                # Ctrl-C is for us to handle; a child that we no longer need is killed.
                start_new_session=True,
            )
            theirs.close()
        return self._ours


#: The one of this process.
NURSERY = Nursery()
atexit.register(NURSERY.stop)


def _import_libraries() -> None:
    import diffusers
    import transformers

    # Both import their models when they are first asked for.
    _ = diffusers.FluxPipeline, diffusers.FluxTransformer2DModel, diffusers.AutoencoderKL
    _ = transformers.T5EncoderModel, transformers.CLIPTextModel, transformers.T5TokenizerFast


def _serve(own: socket.socket) -> None:
    from huggingface_hub import constants

    while True:
        message, fds, _, _ = socket.recv_fds(own, _MOST, 5)
        if not message:
            return
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            own.close()
            for place, given in enumerate(fds[:3]):
                os.dup2(given, place)
            for given in fds[:4]:
                os.close(given)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            # Both are loaded, and have looked at the environment.
            heed_limit()
            constants.HF_HUB_OFFLINE = request["environment"].get("HF_HUB_OFFLINE") == "1"
            # Not the `NURSERY` of this module, which runs as `__main__`.
            module = importlib.import_module(request["run"])
            for given in fds[4:]:
                nursery = importlib.import_module("fluxconv.validators.nursery")
                nursery.NURSERY.adopt(socket.socket(fileno=given))
            module.main()
            return
        for given in (*fds[:3], *fds[4:]):
            os.close(given)
        os.write(fds[3], f"{pid}\n".encode())
        threading.Thread(target=_report_end, args=(pid, fds[3]), daemon=True).start()


def _report_end(pid: int, status: int) -> None:
    _, code, usage = os.wait4(pid, 0)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with suppress(BrokenPipeError):  # whoever asked is gone
        os.write(status, f"{os.waitstatus_to_exitcode(code)} {peak}\n".encode())
    os.close(status)


def main() -> None:
    """Import, then fork until the other end of the socket is closed."""
    importlib.import_module(_WORKER)
    own = socket.socket(fileno=int(sys.argv[1]))
    _import_libraries()
    _serve(own)


if __name__ == "__main__":
    main()
