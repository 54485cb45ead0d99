"""What a run leaves beside its output: one file a node, so that any later run knows what is done.

`OUTPUT/.fluxconv-run/` (for an output that is a URL: a folder of the user's state, see `home_of`)
holds `run.json` (which recipe, which nodes, which process drives it),
`nodes/ID.json` for each node, and `lock`, which the driver of a run holds. Every file is old or
complete, whoever is killed when. Nothing else is needed to show a run, or to go on with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fluxconv.converters.errors import BadInput, DiskFull, OutputExists
from fluxconv.recipes.executors.base import FULL, Problem
from fluxconv.recipes.graph import Graph, Node, Result
from fluxconv.recipes.kinds import digest, get_kind

FOLDER = ".fluxconv-run"
_PADDING = 64  # bytes at the end of `run.json`, for the time at which the run ends
State = Literal["waiting", "running", "done", "failed", "left out"]


@dataclass(frozen=True)
class Marker:
    """What became of a node. `started` and `ended` are seconds since 1970, `peak_memory` is in
    bytes; `why` says in a sentence why it is not done. `host` and `pid` are the worker's."""

    id: str
    state: State
    key: str | None = None
    result: Result | None = None
    started: float | None = None
    ended: float | None = None
    seconds: float | None = None
    peak_memory: int | None = None
    host: str | None = None
    pid: int | None = None
    attempts: int = 0
    problem: Problem | None = None
    why: str | None = None


@dataclass(frozen=True)
class Driver:
    """The process that drives a run; `born` tells it from a later one of the same number."""

    host: str
    pid: int
    born: str | None

    @classmethod
    def this(cls) -> Driver:
        """This process."""
        return cls(platform.node(), os.getpid(), _born(os.getpid()))

    @property
    def is_gone(self) -> bool:
        """Whether it is known to live no more; of another machine's nothing is known."""
        if self.host != platform.node():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return self.born is not None and _born(self.pid) != self.born


@dataclass(frozen=True)
class RunRecord:
    """`run.json`: the recipe's name, its nodes (id, and the ids it waits for), who drives it with
    what, when it began and ended. `ended` is None while it runs, or after it was killed."""

    recipe: str
    executor: str
    driver: Driver
    nodes: Mapping[str, tuple[str, ...]]
    started: float
    ended: float | None = None


def home_of(output: Path | str) -> Path:
    """The folder in which a release with this output has its markers: the output itself, or one in
    the user's state, on the machine that drives the run, for a URL."""
    if isinstance(output, Path):
        return output
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "fluxconv" / "runs" / digest(output)[:16]


class Markers:
    """The markers of the release with this output."""

    def __init__(self, output: Path | str) -> None:
        self.folder = home_of(output) / FOLDER
        self._nodes = self.folder / "nodes"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For one run at a time; raises `OutputExists` if another one has it, `BadInput` if the
        output cannot be written."""
        try:
            self._nodes.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            where = self.folder.parent
            raise BadInput(f"{where}: cannot be written: {error.strerror}") from error
        try:
            self._take(handle)
            yield
        finally:
            os.close(handle)

    def _take(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputExists(
                f"{self.folder.parent}: another run is at work there; wait for its end "
                f"(`fluxconv status {self.folder.parent}` shows it)"
            ) from None

    def read(self, id: str) -> Marker | None:
        """The marker of a node; None if there is none, or none that can be read."""
        found = _read(self._nodes / f"{id}.json")
        try:
            problem = found.get("problem") if found else None
            return Marker(**{**found, "problem": problem and Problem(**problem)}) if found else None
        except TypeError:
            return None

    def write(self, marker: Marker) -> None:
        """Put a marker in place. One that finds no room on the disk is not needed: its node would
        be done again, and finds its work done."""
        with suppress(DiskFull):
            _write(self._nodes / f"{marker.id}.json", asdict(marker))

    def read_run(self) -> RunRecord | None:
        """The record of the last run; None if there is none."""
        found = _read(self.folder / "run.json")
        if found is None:
            return None
        try:
            return RunRecord(**{**found, "driver": Driver(**found["driver"])})
        except (KeyError, TypeError):
            return None

    def write_run(self, record: RunRecord) -> None:
        """Put the record of this run in place; raises `DiskFull`. That it ended needs no room: else
        it would look like one that was killed."""
        file = self.folder / "run.json"
        try:
            _write(file, asdict(record), padding=_PADDING)
        except DiskFull:
            if record.ended is None or not _overwrite(file, asdict(record)):
                raise


def key_of(node: Node, inputs: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """What a node is known by: everything that decides its result. Files count by their contents,
    not by where they lie: what stands under `path` in the arguments is left out."""
    kind = get_kind(node.kind)
    packages = ("fluxconv", *kind.packages(node.arguments))
    return digest(
        {
            "kind": [kind.name, kind.version],
            "arguments": _without_paths(node.arguments),
            "inputs": {id: _digest_for(node, inputs[id]) for id in node.before if id in inputs},
            "versions": {name: versions.get(name, "") for name in packages},
        }
    )


def _digest_for(node: Node, result: Result) -> str:
    """What of a result a node depends on: of a pass, its own variant alone."""
    variants: Mapping[str, str] = result.get("variants", {})
    found: str = variants.get(node.arguments.get("variant", ""), result["digest"])
    return found


def recorded_nodes(graph: Graph) -> dict[str, tuple[str, ...]]:
    """The nodes as `run.json` has them."""
    return {node.id: node.before for node in graph.values()}


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_paths(each) for key, each in value.items() if key != "path"}
    if isinstance(value, list | tuple):
        return [_without_paths(each) for each in value]
    return value


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


def _write(file: Path, data: Mapping[str, Any], padding: int = 0) -> None:
    partial = file.with_name(f".{file.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(_text(data) + " " * padding)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        if error.errno not in FULL:
            raise BadInput(f"{file}: cannot be written: {error.strerror}") from error
        with suppress(OSError):
            partial.unlink()
        raise DiskFull(f"{file}: no room left; make room and run again") from None


def _overwrite(file: Path, data: Mapping[str, Any]) -> bool:
    """Write within the room that the file has already; whether that was enough."""
    try:
        new = _text(data).encode("utf-8")
        size = file.stat().st_size
        if len(new) > size:
            return False
        with file.open("r+b") as stream:
            stream.write(new.ljust(size))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        return False
    return True


def _born(pid: int) -> str | None:
    """When a process began, in the words of the kernel; None where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
