"""Fresh processes that have already imported the libraries, which takes longer than most layers.

A nursery is a process that imports them and nothing else, and forks: each child starts with no more
than the libraries in it, whatever other children have done. Not for a GPU: what a library asked of
CUDA before a fork is broken after it.

A request is one message on the nursery's socket: JSON with the child's environment and folder, and
four file descriptors: stdin, stdout and stderr of the child, and a pipe that the nursery writes the
child's number to, and at its end the exit code.
"""

from __future__ import annotations

import atexit
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

_MOST = 1 << 20  # bytes of a request


class Child:
    """A process that a nursery forked; what `Worker` needs of a `Popen`."""

    def __init__(self, stdin: IO[str], stdout: IO[str], status: IO[str]) -> None:
        self.stdin, self.stdout, self._status = stdin, stdout, status
        first = status.readline()
        if not first:
            raise OSError("the nursery is gone")
        self.pid = int(first)
        self._code: int | None = None

    def wait(self) -> int:
        """The exit code, as `Popen` has it: negative for a signal."""
        if self._code is None:
            last = self._status.readline()
            self._code = int(last) if last else -signal.SIGKILL
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
    """Started by the first child; ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def child(self, stderr: IO[bytes], environment: Mapping[str, str]) -> Child:
        """A new process that runs `worker.main`; raises `OSError` if there can be none."""
        ends = [os.pipe() for _ in range(3)]
        (in_read, in_write), (out_read, out_write), (status_read, status_write) = ends
        request = json.dumps({"environment": dict(environment), "folder": str(Path.cwd())}).encode()
        try:
            with self._lock:
                fds = [in_read, out_write, stderr.fileno(), status_write]
                socket.send_fds(self._socket(environment), [request], fds)
        finally:
            for given in (in_read, out_write, status_write):
                os.close(given)
        return Child(
            os.fdopen(in_write, "w", encoding="utf-8"),
            os.fdopen(out_read, encoding="utf-8"),
            os.fdopen(status_read, encoding="ascii"),
        )

    def stop(self) -> None:
        """End it; its children see the end of their stdin when we do."""
        if self._process:
            self._ours.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _socket(self, environment: Mapping[str, str]) -> socket.socket:
        if self._process and self._process.poll() is not None:
            self.stop()
        if not self._process:
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


def _serve(own: socket.socket, run: Callable[[], None]) -> None:
    while True:
        message, fds, _, _ = socket.recv_fds(own, _MOST, 4)
        if not message:
            return
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            own.close()
            for place, given in enumerate(fds[:3]):
                os.dup2(given, place)
            for given in fds:
                os.close(given)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            run()
            return
        for given in fds[:3]:
            os.close(given)
        os.write(fds[3], f"{pid}\n".encode())
        threading.Thread(target=_report_end, args=(pid, fds[3]), daemon=True).start()


def _report_end(pid: int, status: int) -> None:
    _, code = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # whoever asked is gone
        os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os.close(status)


def main() -> None:
    """Import, then fork until the other end of the socket is closed."""
    from fluxconv.validators import worker

    own = socket.socket(fileno=int(sys.argv[1]))
    _import_libraries()
    _serve(own, worker.main)


if __name__ == "__main__":
    main()
