"""The kinds of nodes: what each does, one module each, with a `KIND`."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fluxconv.converters.progress import Progress
from fluxconv.recipes.graph import Result


@dataclass(frozen=True)
class Work:
    """What a node is done with, in the process where it is done.

    `inputs` are the results of what it needs and gathers, by their ids; `output` is the folder of
    the release as this machine sees it; `earlier` is what the same node left in an earlier run of
    this release, if anything. Work that was stopped goes on from what lies in `output`.
    """

    id: str
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Result]
    output: Path
    progress: Progress
    earlier: Result | None = None

    def results(self, kind: str) -> dict[str, Result]:
        """The inputs of one kind, by name (their ids without the kind)."""
        return {
            id.partition(".")[2]: result
            for id, result in self.inputs.items()
            if id.partition(".")[0] == kind
        }

    def only(self, kind: str) -> Result:
        """The one input of a kind."""
        (found,) = self.results(kind).values()
        return found


def _always(_result: Result, _output: Path) -> bool:
    return True


@dataclass(frozen=True)
class Kind:
    """A kind of node.

    `run` does the work and returns its result (see `Result`; with paths relative to the output,
    where they lie in it); what it raises, a `FluxconvError` above all, is the node's failure. It
    may be stopped at any moment and called again. `stands` says whether all that a result names is
    still there, from a look at the disk that costs next to nothing. `version` grows when the same
    arguments would give another result. `packages` are the libraries whose versions decide the
    result, beside fluxconv itself.
    """

    name: str
    version: int
    run: Callable[[Work], dict[str, Any]]
    stands: Callable[[Result, Path], bool] = _always
    packages: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda _arguments: ()


@cache
def get_kind(name: str) -> Kind:
    """The kind called `name`, from the module of that name."""
    kind = importlib.import_module(f"{__name__}.{name}").KIND
    assert isinstance(kind, Kind)
    assert kind.name == name
    return kind


def digest(value: Any) -> str:
    """The sha256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
