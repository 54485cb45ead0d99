"""One run: what is ready goes to the executor, and whatever happens is marked and told."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from fluxconv.converters.errors import DiskFull, FluxconvError, HubUnreachable, Interrupted
from fluxconv.recipes.executors.base import (
    Ended,
    Event,
    Executor,
    Lost,
    Outcome,
    Problem,
    Progressed,
    Request,
    Started,
    library_versions,
)
from fluxconv.recipes.executors.local import LocalExecutor
from fluxconv.recipes.graph import Graph, Node
from fluxconv.recipes.markers import Driver, Marker, Markers, RunRecord, State, recorded_nodes
from fluxconv.recipes.result import RunResult
from fluxconv.recipes.scheduling import Schedule
from fluxconv.recipes.watching import Watcher

_TRIES = 2  # of a node whose process or machine is lost
#: Problems that go away without the recipe being changed: the node waits for the next run.
_WAITING = {DiskFull.__name__, Interrupted.__name__, HubUnreachable.__name__}
_TICK = 0.2  # seconds between two looks at what the executor has to say


class Drive:
    """One run, from the first look at the markers to the last; the output is locked for it."""

    def __init__(
        self, graph: Graph, output: Path | str, executor: Executor, watcher: Watcher, recipe: str
    ) -> None:
        self._graph, self._output, self._watcher = graph, output, watcher
        self._executors = _Executors(executor)
        self._markers = Markers(output)
        self._versions = library_versions()
        self._schedule = Schedule(graph, self._markers, output, self._versions)
        self._record = RunRecord(
            recipe,
            type(executor).__name__.removesuffix("Executor").lower(),
            Driver.this(),
            recorded_nodes(graph),
            time.time(),
        )
        #: What is with the executor, and the key of each.
        self._open: dict[str, str] = {}
        self._tries: dict[str, int] = {}
        self._done_now: list[str] = []
        self._told: set[str] = set()

    def go(self) -> RunResult:
        """Do all that is left to do."""
        self._markers.write_run(self._record)
        self._watcher.began(self._graph)
        with self._executors:
            try:
                self._go_on()
            except KeyboardInterrupt:
                self._stop()
                raise Interrupted("stopped; run the same recipe again to go on") from None
            finally:
                with suppress(DiskFull):
                    self._markers.write_run(replace(self._record, ended=time.time()))
        markers = dict(self._schedule.finish())
        self._tell()
        ordered = {id: markers[id] for id in self._graph}
        return RunResult(self._output, self._graph, ordered, tuple(self._done_now))

    def _go_on(self) -> None:
        self._submit_ready()
        while self._open:
            event = self._executors.next(_TICK)
            if event is not None and self._handle(event):
                self._submit_ready()

    def _submit_ready(self) -> None:
        for node in self._schedule.ready():
            if node.id not in self._open:
                self._open[node.id] = self._schedule.key(node)
                self._submit(node)
        self._tell()

    def _submit(self, node: Node) -> None:
        self._tries[node.id] = self._tries.get(node.id, 0) + 1
        earlier = self._schedule.earlier.get(node.id)
        self._executors.submit(
            Request(
                node,
                self._schedule.inputs(node),
                str(self._output),
                self._versions,
                earlier.result if earlier else None,
            )
        )

    def _tell(self) -> None:
        """Mark and tell of those that came to their end without being done."""
        for id, marker in self._schedule.now.items():
            if id in self._told or marker.state == "running":
                continue
            self._told.add(id)
            if marker.state in ("left out", "waiting"):
                self._markers.write(marker)
            self._watcher.changed(marker, earlier=marker.state in ("done", "failed"))

    def _handle(self, event: Event) -> bool:
        """Take note of an event; whether a node is over."""
        if event.id not in self._open:
            return False
        match event:
            case Progressed():
                self._watcher.progressed(event)
                return False
            case Started():
                self._started(event)
                return False
            case Ended():
                self._over(event.id, event.outcome)
            case Lost():
                if self._tries[event.id] < _TRIES:
                    self._watcher.note(f"{event.id}: {event.why}; it is tried once more")
                    self._submit(self._graph[event.id])
                    return False
                why = f"{event.why}, {self._tries[event.id]} times"
                lost = Problem(FluxconvError.__name__, why)
                self._over(event.id, Outcome(None, lost, 0.0, None, "", 0))
        return True

    def _started(self, event: Started) -> None:
        # What an earlier run left stays on record until there is something new; but from here on
        # it may not be all there is, so no key vouches for it.
        known = self._schedule.earlier.get(event.id) or Marker(event.id, "waiting")
        marker = replace(
            known,
            state="running",
            key=None,
            started=time.time(),
            ended=None,
            seconds=None,
            peak_memory=None,
            host=event.host,
            pid=event.pid,
            attempts=self._tries[event.id],
            problem=None,
            why=None,
        )
        self._mark(marker)

    def _over(self, id: str, outcome: Outcome) -> None:
        before = self._schedule.now.get(id) or Marker(id, "waiting")
        problem, failed = outcome.problem, (outcome.result or {}).get("failed")
        state: State = "failed" if problem or failed else "done"
        if problem is not None and problem.type in _WAITING:
            state = "waiting"
        marker = replace(
            before,
            state=state,
            ended=time.time(),
            seconds=outcome.seconds,
            peak_memory=outcome.peak_memory,
            problem=problem,
            why=problem.message if problem else failed,
        )
        if outcome.result is not None:
            marker = replace(marker, key=self._open[id], result=outcome.result)
            self._done_now.append(id)
        del self._open[id]
        self._told.add(id)
        self._mark(marker)

    def _mark(self, marker: Marker) -> None:
        self._markers.write(marker)
        self._schedule.update(marker)
        self._watcher.changed(marker, earlier=False)

    def _stop(self) -> None:
        """Have everything come to an end in order, or at once if the user asks again."""
        self._watcher.note("stopping what runs; press Ctrl-C again to stop it at once")
        try:
            self._executors.cancel()
            running = {id for id in self._open if id in self._schedule.now}
            while running & self._open.keys():
                event = self._executors.next(_TICK)
                if isinstance(event, Lost):
                    self._over(event.id, _interrupted())
                elif event is not None:
                    self._handle(event)
        except KeyboardInterrupt:
            self._executors.cancel(at_once=True)
            for id in list(self._open):
                if id in self._schedule.now:
                    self._over(id, _interrupted())


class _Executors:
    """The executor, and this machine beside it for nodes that stay with the driver."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._own: LocalExecutor | None = None

    def __enter__(self) -> _Executors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._own is not None:
            self._own.__exit__(kind, error, trace)

    def submit(self, request: Request) -> None:
        if not request.node.on_driver or isinstance(self._executor, LocalExecutor):
            self._executor.submit(request)
            return
        if self._own is None:
            self._own = LocalExecutor(processes=1)
            self._own.__enter__()
        self._own.submit(request)

    def next(self, timeout: float) -> Event | None:
        if self._own is not None and (event := self._own.next(0)) is not None:
            return event
        return self._executor.next(timeout)

    def cancel(self, *, at_once: bool = False) -> None:
        for each in (self._executor, self._own):
            if each is not None:
                each.cancel(at_once=at_once)


def _interrupted() -> Outcome:
    problem = Problem(Interrupted.__name__, "interrupted", Interrupted.exit_code, resumable=True)
    return Outcome(None, problem, 0.0, None, "", 0)
