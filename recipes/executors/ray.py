"""The executor of a Ray cluster: one task a node, on whichever machine has room for it.

A task is an agent that does its node in a process of its own, as the local executor does, and sends
what that says as it happens. Only events travel, which are small: tensors go through the output,
which all machines see under the same path.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fluxconv.converters.errors import BadInput, MissingRequirement, NotEnoughMemory
from fluxconv.recipes.executors.base import Ended, Event, Lost, Outcome, Problem, Request
from fluxconv.recipes.executors.ray_agent import TOKEN, do
from fluxconv.recipes.executors.scratch import is_url

_OBJECT_STORE = 100 << 20  # bytes, for a cluster that we start: nothing large goes through it
_KNOCK = 10.0  # seconds for a cluster to answer
_LETTING_GO = 3.0  # seconds until processes of a worker that is gone have noticed, and are gone too


@dataclass
class _Running:
    """A node that a task does; `events` is Ray's generator of what it says."""

    id: str
    events: Any


class RayExecutor:
    """Runs each node as a task of the Ray cluster at `address`; None starts one on this machine.

    A task declares the cores, GPUs and memory of its node; with `processes`, it takes its share of
    all cores, so that about so many run at once. The output is a folder that all machines share,
    or a URL (see `scratch`). Raises `MissingRequirement` if Ray is not installed or no cluster
    answers.
    """

    def __init__(self, *, address: str | None = None, processes: int | None = None) -> None:
        self._ray = import_ray()
        if address and address.startswith("ray://"):
            raise MissingRequirement(
                f"{address}: a run does not work through Ray's client; start it on a machine of "
                "the cluster, with --address auto"
            )
        self._address = address
        self._processes = processes
        self._owned = False
        self._running: dict[str, _Running] = {}
        self._ready: deque[Event] = deque()
        self._lost: deque[tuple[float, Lost]] = deque()
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> RayExecutor:
        if self._ray.is_initialized():
            return self
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._address is None:
            quiet |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        try:
            _knock(self._address)
            # "local": else it would join whatever cluster this machine has.
            self._ray.init(self._address or "local", **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            where = self._address or "this machine"
            first = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
            raise MissingRequirement(
                f"no Ray cluster at {where} ({first}); start one with `ray start --head`, or leave "
                "--address out to use this machine alone"
            ) from error
        self._owned = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel(at_once=True)
        if self._owned:
            self._ray.shutdown()
            self._owned = False

    def submit(self, request: Request) -> None:
        """See `Executor`. A node that no machine of the cluster could take fails."""
        node = request.node
        machines = [each["Resources"] for each in self._ray.nodes() if each["Alive"]]
        cpus, need = self._cpus(request, machines), node.resources
        asked = {"CPU": cpus, "GPU": need.gpus, "memory": need.memory}
        lacking = _lacking(asked, machines)
        if lacking:
            self._ready.append(Ended(node.id, _failed(lacking)))
            return
        task = self._ray.remote(do).options(
            num_cpus=cpus,
            num_gpus=need.gpus,
            memory=need.memory or None,
            num_returns="streaming",
            max_retries=0,  # whoever drives the run decides on that
            name=node.id,
        )
        threads = request.threads or cpus
        data = {**request.to_json(), "threads": threads}
        events = task.remote(data, self._token(request.output), bool(need.gpus))
        self._running[node.id] = _Running(node.id, events)

    def next(self, timeout: float) -> Event | None:
        """See `Executor`."""
        now = time.monotonic()
        if self._lost and self._lost[0][0] <= now:
            return self._lost.popleft()[1]
        if not self._ready:
            self._listen(timeout)
        return self._ready.popleft() if self._ready else None

    def cancel(self, *, at_once: bool = False) -> None:
        """See `Executor`."""
        for each in list(self._running.values()):
            self._ray.cancel(each.events, force=at_once)
            if at_once:
                del self._running[each.id]

    def _listen(self, timeout: float) -> None:
        by_events = {each.events: each for each in self._running.values()}
        if not by_events:
            time.sleep(timeout)
            return
        ready, _ = self._ray.wait(list(by_events), timeout=timeout, fetch_local=False)
        for events in ready:
            self._take(by_events[events])

    def _take(self, running: _Running) -> None:
        """The next word of a task."""
        ray, id = self._ray, running.id
        try:
            event = ray.get(next(running.events))
        except StopIteration:  # without an end: it was cancelled
            self._gone(id, "it was stopped")
        except ray.exceptions.TaskCancelledError:
            self._gone(id, "it was stopped")
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ray.exceptions.TaskCancelledError):
                self._gone(id, "it was stopped")
                return
            del self._running[id]
            self._ready.append(Ended(id, _failed(_of_task(error))))
        except ray.exceptions.RayError as error:
            self._gone(id, _why(error))
        else:
            if isinstance(event, Lost):
                self._gone(id, event.why)
                return
            if isinstance(event, Ended):
                del self._running[id]
            self._ready.append(event)

    def _gone(self, id: str, why: str) -> None:
        del self._running[id]
        # What its processes had open is let go by then, and may be opened again.
        self._lost.append((time.monotonic() + _LETTING_GO, Lost(id, why)))

    def _cpus(self, request: Request, machines: list[dict[str, float]]) -> int:
        sizes = [int(each.get("CPU", 0)) for each in machines]
        if request.node.resources.alone:  # all cores of one of the largest machines
            return max(sizes)
        if self._processes:
            return max(1, min(max(sizes), sum(sizes) // self._processes))
        return request.node.resources.cpus

    def _token(self, output: str) -> str:
        """What a worker must find in the output, to know that it is the same folder."""
        if is_url(output):
            return ""
        place = Path(output) / TOKEN
        if output not in self._tokens or not place.exists():
            self._tokens[output] = secrets.token_hex(8)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(self._tokens[output])
            except OSError as error:
                raise BadInput(f"{output}: cannot be written: {error.strerror}") from error
        return self._tokens[output]


def import_ray() -> Any:
    """Ray itself, silent and with nothing to tell to anybody; raises `MissingRequirement`.

    All of it is read when Ray is imported, and by what it starts.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # It prints what its nodes say of workers that die to stdout, where a command's JSON goes; of
    # the lines that it is told to skip nothing is printed. A run tells of them itself.
    os.environ |= {"RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": "(?s).*"}
    try:
        import ray
    except ImportError:
        raise MissingRequirement(
            "the ray executor needs Ray, which is not installed: pip install 'fluxconv[ray]'"
        ) from None
    return ray


def _knock(address: str | None) -> None:
    """Raise `OSError` if nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK).close()


def _lacking(asked: dict[str, int], machines: list[dict[str, float]]) -> Problem | None:
    """Why no machine could ever take a task that asks for so much; None if one could."""
    if any(all(each.get(k, 0) >= v for k, v in asked.items()) for each in machines):
        return None
    most = max((each.get("memory", 0) for each in machines), default=0)
    kind = NotEnoughMemory if asked["memory"] > most else MissingRequirement
    what = f"{asked['CPU']} cores, {asked['GPU']} GPUs and {asked['memory'] / 1e9:.1f} GB of memory"
    return Problem(
        kind.__name__,
        f"no machine of the Ray cluster has {what} (the most memory that one offers is "
        f"{most / 1e9:.1f} GB); start a larger one",
        kind.exit_code,
    )


def _of_task(error: Exception) -> Problem:
    """What went wrong in the agent itself."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, ModuleNotFoundError):
        return Problem(
            MissingRequirement.__name__,
            f"a worker of the Ray cluster lacks the module {cause.name}; install on every machine "
            "what is installed on this one",
            MissingRequirement.exit_code,
        )
    return Problem.of(cause if isinstance(cause, Exception) else error)


def _why(error: Exception) -> str:
    """One line of what Ray says in many."""
    words = {
        "NodeDiedError": "its machine is gone",
        "LocalRayletDiedError": "its machine is gone",
        "OutOfMemoryError": "its machine ran out of memory",
        "WorkerCrashedError": "its worker is gone",
        "TaskCancelledError": "it was stopped",
    }
    return words.get(type(error).__name__, f"Ray says {type(error).__name__}")


def _failed(problem: Problem) -> Outcome:
    return Outcome(None, problem, 0.0, None, "", 0)
