"""Files whose tensors turned out smaller than planned, written anew with the true sizes.

One library stores a number as text, so the length of a few bytes is known only after encoding. The
weights are streamed into files that leave room for the longest; then each file is copied, tensor by
tensor, under a temporary name, and put in the place of the roomy one.
"""

from __future__ import annotations

import os
from pathlib import Path

from fluxconv.converters.journal import Journal
from fluxconv.converters.layout import FileLayout, LayoutWriter
from fluxconv.converters.planning import ComponentPlan, settled

_SUFFIX = ".settled"
_PIECE = 1 << 23


def needs_settling(plan: ComponentPlan) -> bool:
    """Whether the plan has tensors that it could only bound."""
    return any(not stored.settled for tensor in plan.tensors for stored in tensor.stored)


def settle(folder: Path, plan: ComponentPlan, journal: Journal) -> ComponentPlan:
    """Give the component's files below `folder` their true sizes; returns the plan of them.

    After a kill at any point it can be called again: the copies are complete before the journal
    says so, and only then take the places of the files they were made from.
    """
    final = settled(plan, journal.sizes(plan.component))
    if not journal.is_settled(plan.component):
        _copy(folder, plan, final)
        journal.settle(plan.component)
    names = {file.name for file in final.files}
    for name in sorted(names):
        copy = folder / (name + _SUFFIX)
        if copy.exists():  # else it was put in place before a kill
            copy.replace(folder / name)
    for file in plan.files:
        if file.name not in names:
            (folder / file.name).unlink(missing_ok=True)
    return final


def _copy(folder: Path, plan: ComponentPlan, final: ComponentPlan) -> None:
    places = {
        name: (file, place.offset) for file in plan.files for name, place in file.placements.items()
    }
    handles = {file.name: os.open(folder / file.name, os.O_RDONLY) for file in plan.files}
    try:
        with LayoutWriter(folder, final.files, suffix=_SUFFIX) as writer:
            for name, place in _in_order(final.files):
                file, offset = places[name]
                for start in range(0, place, _PIECE):
                    count = min(_PIECE, place - start)
                    data = os.pread(handles[file.name], count, offset + start)
                    writer.write(name, memoryview(data), start)
    finally:
        for handle in handles.values():
            os.close(handle)


def _in_order(files: tuple[FileLayout, ...]) -> list[tuple[str, int]]:
    return [(name, place.nbytes) for file in files for name, place in file.placements.items()]
