"""What an executor is, and `run_node`, which every executor calls where the work is done.

All that goes to a worker and comes back is plain data, so it may travel as JSON or by pickle.
"""

from __future__ import annotations

import errno
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from fluxconv.converters import errors
from fluxconv.converters.errors import DiskFull, FluxconvError, Interrupted, MissingRequirement
from fluxconv.converters.progress import Progress
from fluxconv.recipes.graph import Node, Resources, Result
from fluxconv.recipes.kinds import Work, get_kind

#: How the system says that a disk, or what may be used of it, is full.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Request:
    """A node, and what it is done with. `versions` are those of the driver's libraries; a worker
    with others refuses. `threads` is how many the worker computes with, None for all cores."""

    node: Node
    inputs: Mapping[str, Result]
    output: str
    versions: Mapping[str, str]
    earlier: Result | None = None
    threads: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; see `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """What `to_json` was made of."""
        node = dict(data["node"])
        node["resources"] = Resources(**node["resources"])
        node["needs"], node["gathers"] = tuple(node["needs"]), tuple(node["gathers"])
        return cls(**{**data, "node": Node(**node)})


@dataclass(frozen=True)
class Problem:
    """An error as data: the name of its class, its sentence, its exit code, and whether the same
    run, given again, can get over it."""

    type: str
    message: str
    exit_code: int = 1
    resumable: bool = False

    def error(self) -> FluxconvError:
        """The error itself, of the class it had if that is one of fluxconv's own."""
        kind = getattr(errors, self.type, FluxconvError)
        if not (isinstance(kind, type) and issubclass(kind, FluxconvError)):
            kind = FluxconvError
        made = FluxconvError.__new__(kind)  # some build their sentence from other arguments
        Exception.__init__(made, self.message)
        made.exit_code, made.resumable = self.exit_code, self.resumable
        return made

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """Any error as data; a full disk is one whoever met it, and in whatever words."""
        if _is_full(error):
            return cls(DiskFull.__name__, f"no room left on the disk ({error})", 3, True)
        if isinstance(error, FluxconvError):
            return cls(type(error).__name__, str(error), error.exit_code, error.resumable)
        if isinstance(error, KeyboardInterrupt):
            return cls(Interrupted.__name__, "interrupted", Interrupted.exit_code, True)
        return cls(type(error).__name__, f"unexpected {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Outcome:
    """How a node ended: a result or a problem, and what it took. `peak_memory` is in bytes, of the
    worker and the largest process that it started, None where that cannot be measured."""

    result: Result | None
    problem: Problem | None
    seconds: float
    peak_memory: int | None
    host: str
    pid: int


@dataclass(frozen=True)
class Started:
    """The node `id` is being done."""

    id: str
    host: str
    pid: int


@dataclass(frozen=True)
class Progressed:
    """A call of `Progress`: `event` is `start`, `advance`, `finish` or `note`."""

    id: str
    event: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Ended:
    """The node `id` came to its end, well or not."""

    id: str
    outcome: Outcome


@dataclass(frozen=True)
class Lost:
    """The process or machine that did the node `id` is gone; `why` says what is known of it."""

    id: str
    why: str


Event = Started | Progressed | Ended | Lost


class Executor(Protocol):
    """Runs nodes, several at once. A context manager: at its end nothing that it started runs.

    The driver submits a node when all that it waits for is over; it begins when there is room.
    Results do not depend on the executor.
    """

    def __enter__(self) -> Executor: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def submit(self, request: Request) -> None:
        """Have a node done as soon as there is room; what becomes of it comes out of `next`: it is
        started, makes progress, and ends or is lost."""

    def next(self, timeout: float) -> Event | None:
        """What happened next; None if nothing did within `timeout` seconds."""

    def cancel(self, *, at_once: bool = False) -> None:
        """Begin nothing more, and stop what runs. It may clean up, and comes out as ended or lost;
        `at_once` kills it, and nothing more comes out."""


#: The libraries whose versions a worker must share with the driver, as far as they are installed.
LIBRARIES = (
    "fluxconv",
    "torch",
    "diffusers",
    "transformers",
    "safetensors",
    "bitsandbytes",
    "torchao",
    "optimum-quanto",
    "gguf",
    "accelerate",
    "huggingface-hub",
    "torchmetrics",
    "flip-evaluator",
)


def library_versions() -> dict[str, str]:
    """Python's version here and those of the libraries; empty for one that is not installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def run_node(request: Request, progress: Progress) -> Outcome:
    """Do a node in this process; what goes wrong is in the outcome, nothing is raised.

    What ends the process (a kill, want of memory) is for the executor to see. The process does
    nothing else meanwhile: threads and measured memory are its own.
    """
    began = time.monotonic()
    result: Result | None = None
    problem: Problem | None = None
    try:
        _require_versions(request)
        _use_threads(request.threads)
        node = request.node
        work = Work(
            node.id,
            node.arguments,
            request.inputs,
            Path(request.output),
            progress,
            request.earlier,
        )
        result = get_kind(node.kind).run(work)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - it is data from here on
        problem = Problem.of(error)
    return Outcome(
        result,
        problem,
        round(time.monotonic() - began, 3),
        _peak_memory(),
        platform.node(),
        os.getpid(),
    )


def _is_full(error: BaseException | None) -> bool:
    if isinstance(error, DiskFull):
        return False  # it has said so itself
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def _require_versions(request: Request) -> None:
    here = library_versions()
    other = [
        f"{name} {here.get(name) or 'not installed'} (the driver has {version or 'none'})"
        for name, version in request.versions.items()
        if here.get(name, "") != version
    ]
    if other:
        raise MissingRequirement(
            f"the worker on {platform.node()} has other libraries than the driver: "
            f"{', '.join(other)}; install the same there"
        )


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        from fluxconv.converters.threads import limit_cores

        limit_cores(threads)


def _peak_memory() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    from fluxconv.validators.nursery import NURSERY

    unit = 1 if platform.system() == "Darwin" else 1024
    own, children = (
        unit * resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own + max(children, NURSERY.peak)
