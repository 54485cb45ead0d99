"""Running a layer in a process of its own, so that nothing but the disk speaks for a variant.

A `Worker` is one fresh Python process. It takes one job after the other, so that what a layer had
to import is there for the next. If it dies, the job fails with one sentence.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from fluxconv.converters.errors import FluxconvError
from fluxconv.converters.progress import Progress
from fluxconv.validators.nursery import NURSERY, Child

_TAIL = 8192  # bytes of a dead worker's messages in which its last word is looked for


class LayerFailed(FluxconvError):
    """A layer could not be finished; the message is the reason."""


class Worker:
    """A process that runs jobs of `fluxconv.validators.worker`; started by the first job.

    On a CPU it comes from the nursery, with the libraries imported; see there why not on a GPU.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._warm = device == "cpu" and hasattr(os, "fork")
        self._process: subprocess.Popen[str] | Child | None = None
        self._messages: IO[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int | None:
        """The process's number while it lives."""
        return self._process.pid if self._process else None

    def run(self, job: str, request: Mapping[str, Any], progress: Progress) -> Any:
        """Do `job` and return what it answers (JSON); its progress goes to `progress`.

        Raises `LayerFailed` with the job's own error, or with what killed the process.
        """
        process = self._process or self._start()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps({"job": job, "request": dict(request)}) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                event = json.loads(line)
                if "result" in event:
                    return event["result"]
                if "error" in event:
                    raise LayerFailed(event["error"])
                if "crash" in event:
                    self._stop()
                    raise LayerFailed(f"it failed unexpectedly: {event['crash']}")
                _pass_on(event, progress)
        except BrokenPipeError:
            pass  # it died before it read the job
        raise LayerFailed(self._bury(process))

    def _start(self) -> subprocess.Popen[str] | Child:
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _stop
        # Everything a layer reads is on this disk; a library that asks the Hub would be wrong.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        if self._warm:
            with suppress(OSError):  # then without it: what is wrong will show there
                self._process = NURSERY.child(self._messages, environment)
                return self._process
        self._process = subprocess.Popen(
            # -P: a file in the user's folder must not stand in for a library of the same name.
            [sys.executable, "-P", "-m", "fluxconv.validators.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        return self._process

    def _bury(self, process: subprocess.Popen[str] | Child) -> str:
        code = process.wait()
        last = self._last_message()
        self._stop()
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended unexpectedly: {last or f'exit code {code}'}"

    def _last_message(self) -> str:
        assert self._messages
        size = self._messages.seek(0, os.SEEK_END)
        self._messages.seek(max(0, size - _TAIL))
        lines = self._messages.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _stop(self) -> None:
        if isinstance(self._process, Child):
            self._process.kill()
        elif self._process:
            self._process.kill()
            self._process.communicate()
        self._process = None
        if self._messages:
            self._messages.close()
            self._messages = None


def _pass_on(event: Mapping[str, Any], progress: Progress) -> None:
    if "start" in event:
        progress.start(*event["start"])
    elif "advance" in event:
        progress.advance(*event["advance"])
    elif "note" in event:
        progress.note(event["note"])
    else:
        progress.finish()
