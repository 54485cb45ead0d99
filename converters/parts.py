"""One pass split over several workers: each encodes a range of the source's tensors.

All parts write into the files of the same hidden folders, each tensor at the place that the plan
has for it, so no two of them write the same byte and nothing has to be put together. When they are
done, the ordinary `quantize` takes up what their journals name, encodes what is lacking (whatever
became of a part), and makes the variants of it: byte for byte those of a run that was not split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fluxconv.converters.backends import Backend, require
from fluxconv.converters.checkpoint import Checkpoint, choose_components
from fluxconv.converters.component import Component
from fluxconv.converters.errors import UsageError
from fluxconv.converters.journal import JOURNAL_NAME, Journal, Weight, Written
from fluxconv.converters.layout import LayoutWriter
from fluxconv.converters.part_journals import new_path, part_journals, written_by
from fluxconv.converters.planning import VariantPlan, plan
from fluxconv.converters.preparation import prepare
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.quantization import check_space, fits, full_disk
from fluxconv.converters.records import subject
from fluxconv.converters.staging import hidden, joined
from fluxconv.converters.steps import Step
from fluxconv.converters.stream import Output, stream_component


@dataclass(frozen=True)
class Part:
    """What one part did: for how many weights it answers, summed over the variants, and the bytes
    of the source that they are made of. Its journals say which, until the variants are made."""

    weights: int
    nbytes: int
    journals: tuple[Path, ...]


def quantize_part(
    checkpoint: Checkpoint,
    backends: Sequence[str | Backend],
    output: Path,
    index: int,
    count: int,
    *,
    components: tuple[str, ...] = (),
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Part:
    """Do part `index` (from 0) of the `count` parts of what `quantize` does with these arguments.

    Parts may run at the same time, on one machine or on several that share `output`, in any order
    and more than once; what another run of a part has written is not encoded again. Then `quantize`
    makes the variants. A variant that stands there already is left to it.

    Raises what `quantize` raises, and `UsageError` for a part that there is not.
    """
    if not 0 <= index < count:
        raise UsageError(f"part {index} of {count}: the parts are numbered 0 to {count - 1}")
    progress = progress or Silent()
    plans = [
        item
        for item in plan(checkpoint, backends, components)
        if overwrite or not (output / item.name).exists()
    ]
    for item in plans:
        require(item.backend, device)
    check_space(plans, output)
    chosen = choose_components(checkpoint, components)
    shares = split(chosen, count)[index] if plans else {}
    nbytes = sum(_cost(checkpoint.components[name], steps) for name, steps in shares.items())
    with full_disk(output), ExitStack() as stack:
        filled = [
            stack.enter_context(_filling(item, output / item.name, subject(item, device, "stream")))
            for item in plans
        ]
        prepare([c for item in plans for c in item.components], device, progress)
        progress.start(f"Quantizing, part {index + 1} of {count}", nbytes)
        for name, steps in shares.items():
            component = replace(checkpoint.components[name], steps=steps)
            with ExitStack() as writers:
                outputs = [writers.enter_context(each.output(name)) for each in filled]
                todo = [output for output in outputs if output is not None]
                if todo:
                    stream_component(component, todo, device, progress, whole=False)
        for each in filled:
            each.journal.synced()
        progress.finish()
    return Part(
        sum(len(each.journal) for each in filled),
        nbytes,
        tuple(each.journal.path for each in filled),
    )


def split(components: Sequence[Component], count: int) -> list[dict[str, tuple[Step, ...]]]:
    """For each of `count` parts, the steps of each component that it does.

    Ranges of the files, of about equal bytes: what encoding takes goes with the bytes. One part may
    be empty where tensors are few and large.
    """
    total = sum(_cost(component, component.steps) for component in components)
    parts: list[dict[str, tuple[Step, ...]]] = [{} for _ in range(count)]
    before = 0
    for component in components:
        for step in sorted(component.steps, key=partial(_place, component, _places(component))):
            cost = _cost(component, (step,))
            part = parts[min(count - 1, (2 * before + cost) * count // (2 * total))]
            part[component.name] = (*part.get(component.name, ()), step)
            before += cost
    return parts


def _places(component: Component) -> dict[str, int]:
    return {name: at for at, name in enumerate(component.tensors)}


def _place(component: Component, places: Mapping[str, int], step: Step) -> int:
    """Where the largest tensor of a step stands: a scale may be anywhere."""
    return places[max(step.stored, key=lambda name: component.tensors[name].nbytes)]


def _cost(component: Component, steps: Sequence[Step]) -> int:
    """The bytes that are read for some steps."""
    return sum(component.tensors[name].nbytes for step in steps for name in step.stored)


@dataclass(frozen=True)
class _Filling:
    """A variant that this part helps to fill. `others` is what is written already, and `ended` the
    components that are complete."""

    item: VariantPlan
    folder: Path
    journal: Journal
    others: Mapping[Weight, Written]
    ended: frozenset[str]

    @contextmanager
    def output(self, name: str) -> Iterator[Output | None]:
        """Where the component `name` goes; None if it is complete."""
        if name in self.ended:
            yield None
            return
        (component,) = (each for each in self.item.components if each.component == name)
        with LayoutWriter(self.folder, component.files, resume=True) as writer:
            yield Output(component, writer, self.journal, self.others)


@contextmanager
def _filling(item: VariantPlan, place: Path, what: Mapping[str, Any]) -> Iterator[_Filling]:
    """The variant's hidden folder, together with others, and a journal of our own in it."""
    folder = hidden(place, "partial")
    fit = partial(fits, item, folder)

    def of_use(alone: bool) -> bool:
        journals = [Journal(folder / JOURNAL_NAME, what, fits=fit)]
        journals += part_journals(folder, what, fit)
        if any(journal.why for journal in journals):
            return False
        begun = any(not journal.fresh for journal in journals)
        return begun or not alone or not any(folder.iterdir())

    with joined(folder, f"{place}: another run is writing it", of_use):
        main = Journal(folder / JOURNAL_NAME, what, fits=fit)
        others = written_by(part_journals(folder, what, fit))
        ended = frozenset(c.component for c in item.components if main.is_settled(c.component))
        with Journal(new_path(folder), what) as journal:
            yield _Filling(item, folder, journal, others, ended)
