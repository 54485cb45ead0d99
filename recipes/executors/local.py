"""The executor of one machine: a process for each node, as many at once as the machine allows."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import IO

from fluxconv.converters.threads import cores
from fluxconv.recipes.executors.base import (
    Ended,
    Event,
    Lost,
    Outcome,
    Problem,
    Progressed,
    Request,
    Started,
)
from fluxconv.validators.machine import free_memory
from fluxconv.validators.nursery import NURSERY, Child

_WORKER = "fluxconv.recipes.executors.worker"
_LEAST_MEMORY = 2 << 30  # bytes for which a process is worth starting
_TAIL = 4096  # bytes of a lost process's messages in which its last word is looked for


@dataclass
class _Running:
    """A node at work. `gpu` is the one that it has for itself."""

    request: Request
    process: Child | subprocess.Popen[str]
    messages: IO[bytes]
    gpu: str | None
    reader: threading.Thread = field(init=False)


class LocalExecutor:
    """Runs each node in a process of its own: one for each GPU, or as many as `processes`, or as
    memory and cores allow. They share the cores among them.

    On a CPU they are forked from one that has imported the libraries. A node whose estimated memory
    is not free beside the others waits for them; one that is to be `alone` waits for all.
    """

    def __init__(self, *, device: str = "cpu", processes: int | None = None) -> None:
        self._gpus: list[str] | None = _gpus() if device == "cuda" else None
        self._memory = free_memory()
        most = len(self._gpus) if self._gpus is not None else self._fitting()
        self.processes = min(processes or most, most) if self._gpus else processes or most
        self._waiting: list[Request] = []
        self._running: dict[str, _Running] = {}
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def _fitting(self) -> int:
        return max(1, min(cores(), self._memory // _LEAST_MEMORY))

    def __enter__(self) -> LocalExecutor:
        if self._gpus is None:
            with suppress(OSError):  # then without it: what is wrong will show there
                NURSERY.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel(at_once=True)

    def submit(self, request: Request) -> None:
        """See `Executor`."""
        self._waiting.append(request)

    def next(self, timeout: float) -> Event | None:
        """See `Executor`."""
        self._begin()
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(event, Ended | Lost):
            self._forget(event.id)
        return event

    def cancel(self, *, at_once: bool = False) -> None:
        """See `Executor`."""
        self._waiting.clear()
        for each in list(self._running.values()):
            if at_once:
                self._forget(each.request.node.id)
            else:
                with suppress(ProcessLookupError):
                    os.kill(each.process.pid, signal.SIGINT)

    def _begin(self) -> None:
        """Start what there is room for; the cores are shared among all that runs then."""
        chosen: list[Request] = []
        for request in self._waiting:
            if self._has_room(request, chosen):
                chosen.append(request)
        share = max(1, cores() // max(1, len(self._running) + len(chosen)))
        if self._gpus:
            share = max(1, cores() // len(self._gpus))
        for request in chosen:
            self._waiting.remove(request)
            self._start(replace(request, threads=request.threads or share))

    def _has_room(self, request: Request, chosen: list[Request]) -> bool:
        beside = [each.request for each in self._running.values()] + chosen
        if not beside:
            return True
        need = request.node.resources
        if len(beside) >= self.processes or need.alone:
            return False
        if any(each.node.resources.alone for each in beside):
            return False
        return need.memory + sum(each.node.resources.memory for each in beside) <= self._memory

    def _start(self, request: Request) -> None:
        id = request.node.id
        messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _forget
        taken = {each.gpu for each in self._running.values()}
        gpu = next((each for each in self._gpus or () if each not in taken), None)
        running = _Running(request, _process(messages, gpu), messages, gpu)
        self._running[id] = running
        assert running.process.stdin
        with suppress(BrokenPipeError):  # it died already, as the reader will see
            running.process.stdin.write(json.dumps(request.to_json()) + "\n")
            running.process.stdin.flush()
        running.reader = threading.Thread(target=self._read, args=(id, running), daemon=True)
        running.reader.start()

    def _read(self, id: str, running: _Running) -> None:
        """Hand on what the process says, in a thread of its own."""
        self._events.put(Started(id, os.uname().nodename, running.process.pid))
        assert running.process.stdout
        ended = False
        with suppress(ValueError, OSError):  # it was killed in the midst of a line
            for line in running.process.stdout:
                event, *arguments = json.loads(line)
                if event == "outcome":
                    self._events.put(Ended(id, _outcome(arguments[0])))
                    ended = True
                    break
                self._events.put(Progressed(id, event, tuple(arguments)))
        if not ended:
            with suppress(ValueError, OSError):  # we killed it ourselves
                self._events.put(Lost(id, _why(running.process.wait(), running.messages)))

    def _forget(self, id: str) -> None:
        running = self._running.pop(id, None)
        if running is None:
            return
        process = running.process
        # Before anything is closed: the reader holds what it reads from.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        running.reader.join()
        process.kill()
        process.wait()
        running.messages.close()


def _process(messages: IO[bytes], gpu: str | None) -> Child | subprocess.Popen[str]:
    environment = dict(os.environ)
    if gpu is None:
        with suppress(OSError):
            return NURSERY.child(messages, environment, run=_WORKER, sharing=True)
    else:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return subprocess.Popen(
        # -P: a file in the user's folder must not stand in for a library of the same name.
        [sys.executable, "-P", "-m", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=messages,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,  # Ctrl-C is for the driver to handle
    )


def _outcome(data: dict[str, object]) -> Outcome:
    problem = data["problem"]
    return Outcome(**{**data, "problem": Problem(**problem) if problem else None})  # type: ignore[arg-type]


def _why(code: int, messages: IO[bytes]) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}"
    size = messages.seek(0, os.SEEK_END)
    messages.seek(max(0, size - _TAIL))
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    return f"its process ended unexpectedly: {lines[-1].strip() if lines else f'exit code {code}'}"


def _gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return [each.strip() for each in named.split(",")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
