"""One pass over a checkpoint that writes every variant asked for."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fluxconv.converters.backends import Backend, require
from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.configs import write_configs
from fluxconv.converters.converging import already_made, confirm
from fluxconv.converters.errors import BadInput, DiskFull, MissingRequirement
from fluxconv.converters.journal import JOURNAL_NAME, Journal, Weight, Written
from fluxconv.converters.layout import LayoutWriter
from fluxconv.converters.manifest import Engine, FileRecord
from fluxconv.converters.part_journals import forget, part_journals, written_by
from fluxconv.converters.planning import ComponentPlan, VariantPlan, plan
from fluxconv.converters.preparation import prepare
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.records import MadeBy, source_record, subject, write_manifest
from fluxconv.converters.settling import needs_settling, settle
from fluxconv.converters.staging import empty, hidden, staged
from fluxconv.converters.stored import component_entries, matches
from fluxconv.converters.stream import Output, stream_component
from fluxconv.converters.variant import Variant, hash_file, open_variant

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def quantize(
    checkpoint: Checkpoint,
    backends: Sequence[str | Backend],
    output: Path,
    *,
    components: tuple[str, ...] = (),
    device: str = "cpu",
    overwrite: bool = False,
    engine: Engine = "stream",
    progress: Progress | None = None,
) -> tuple[Variant, ...]:
    """Write one variant for each backend into `output`, reading the source once.

    Each variant is made in a hidden folder beside its place, hashed after reopening, and renamed
    into place when all is well; until then `output` holds what it held. After a kill, Ctrl-C or a
    full disk the same call goes on where it was stopped; variants that are there already, made of
    the same source with the same settings, are left as they are. The `library` engine calls the
    libraries' own `from_pretrained` and `save_pretrained`, with the whole model in memory.

    Raises `MissingRequirement`, `OutputExists`, `BadWeight`, `MalformedFile`, `SourceChanged`,
    `DiskFull`, `BadInput`.
    """
    progress = progress or Silent()
    plans = plan(checkpoint, backends, components)
    if output.resolve().is_relative_to(checkpoint.root):
        raise BadInput(f"{output}: lies in the source, which is never written to; choose another")
    for item in plans:
        require(item.backend, device)
    subjects = {item.name: subject(item, device, engine) for item in plans}
    there = {}
    for item in plans:
        found = already_made(
            output / item.name, subjects[item.name], overwrite=overwrite, progress=progress
        )
        if found is not None:
            there[item.name] = found
    todo = [item for item in plans if item.name not in there]
    for item in todo:
        _require_engine(item, engine, device)
        if item.remark is not None:
            progress.note(f"{item.name}: {item.remark}")
    check_space(todo, output)
    if there:
        known = source_record(checkpoint, plans[0], {}, progress)
        for variant in there.values():
            confirm(variant, known.files)
            progress.note(f"{variant.name}: is there already, made from the same source")
    with full_disk(output), ExitStack() as commits:
        made = [
            commits.enter_context(
                _making(item, output / item.name, subjects[item.name], overwrite, progress)
            )
            for item in todo
        ]
        # Configs may need the libraries' own classes, which take seconds to import: time to hash.
        with ThreadPoolExecutor(2) as pool:
            if engine == "library":
                hashes = _with_library(checkpoint, made, device, progress)
            else:
                hashes = _streamed(checkpoint, made, device, progress, pool)
            if made:
                source = source_record(checkpoint, plans[0], hashes, progress)
                progress.start("Hashing", sum(item.nbytes for item in todo))
            hashed = {file: each.hashed(file, pool) for each in made for file in each.weights}
            for each in made:
                _copy_carried(each)
                for component in each.done:
                    write_configs(component, each.folder)
                _reopen(each)
                made_by = MadeBy(device, engine)
                write_manifest(each.plan, each.done, each.folder, source, made_by, hashed, progress)
        progress.finish()
    return tuple(open_variant(output / item.name) for item in plans)


def check_space(plans: Sequence[VariantPlan], output: Path) -> None:
    """Raise `DiskFull` if the disk of `output` has less free space than is still to be written."""
    needed = 0
    for item in plans:
        needed += item.nbytes - _allocated(hidden(output / item.name, "partial"))
        needed += max(  # the copy of a file with its true sizes stands beside it for a while
            (file.size for c in item.components if needs_settling(c) for file in c.files), default=0
        )
    place = output.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskFull(
            f"{output}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; choose "
            "another disk with -o, or fewer backends"
        )


@dataclass
class _Making:
    """A variant on its way; `done` are the plans of its components as they were carried out."""

    plan: VariantPlan
    folder: Path
    journal: Journal
    parts: Mapping[Weight, Written]
    done: list[ComponentPlan] = field(default_factory=list)
    _hashed: dict[Path, Future[FileRecord]] = field(default_factory=dict)

    def hashed(self, file: Path, pool: ThreadPoolExecutor) -> Future[FileRecord]:
        """The hash of a complete file, read back from the start; begun if it is not yet."""
        if file not in self._hashed:
            self._hashed[file] = pool.submit(hash_file, file)
        return self._hashed[file]

    @property
    def weights(self) -> list[Path]:
        """The files of its weights."""
        return [self.folder / file.name for component in self.done for file in component.files]


@contextmanager
def _making(
    item: VariantPlan, place: Path, what: Mapping[str, Any], overwrite: bool, progress: Progress
) -> Iterator[_Making]:
    """The hidden folder of a variant and its journal; in place when the block ends well."""
    with (
        staged(place, overwrite=overwrite, resumable=True) as folder,
        Journal(folder / JOURNAL_NAME, what, fits=partial(fits, item, folder)) as journal,
    ):
        theirs = part_journals(folder, what, partial(fits, item, folder))
        parts = {} if journal.why else written_by(theirs)
        if journal.fresh and not parts:
            empty(folder, but=JOURNAL_NAME)
        done = len({*parts, *dict(journal.items())})
        if journal.why:
            progress.note(f"{item.name}: starts over: {journal.why}")
        elif done:
            progress.note(f"{item.name}: goes on, {done} weights are written already")
        yield _Making(item, folder, journal, parts)
    (place / JOURNAL_NAME).unlink(missing_ok=True)


def fits(item: VariantPlan, folder: Path, journal: Journal) -> bool:
    """Whether the files stand as the journal of an earlier run presumes."""
    return all(
        (folder / file.name).is_file() and (folder / file.name).stat().st_size == file.size
        for component in item.components
        if journal.began(component.component) and not journal.is_settled(component.component)
        for file in component.files
    )


def _streamed(
    checkpoint: Checkpoint,
    made: Sequence[_Making],
    device: str,
    progress: Progress,
    pool: ThreadPoolExecutor,
) -> dict[Path, str]:
    """Stream every component into all variants; returns the sha256 of each file read."""
    if not made:
        return {}
    components = [component for each in made for component in each.plan.components]
    prepare(components, device, progress)
    names = [component.component for component in made[0].plan.components]
    progress.start("Quantizing", sum(checkpoint.components[name].nbytes for name in names))
    hashes: dict[Path, str] = {}
    for index, name in enumerate(names):
        with ExitStack() as stack:
            outputs = []
            for each in made:
                component = each.plan.components[index]
                if each.journal.is_settled(name):
                    continue
                resume = bool(each.parts) or not each.journal.fresh
                writer = LayoutWriter(each.folder, component.files, resume=resume)
                stack.enter_context(writer)
                outputs.append(Output(component, writer, each.journal, each.parts))
            if outputs:
                hashes |= stream_component(checkpoint.components[name], outputs, device, progress)
            if name == names[-1]:  # while leaving this block waits for the disk
                for each in made:
                    for component in each.plan.components:
                        if not needs_settling(component):
                            for file in component.files:
                                each.hashed(each.folder / file.name, pool)
        for each in made:
            component = each.plan.components[index]
            if needs_settling(component):
                component = settle(each.folder, component, each.journal)
            each.done.append(component)
    for each in made:
        each.journal.synced()
        forget(each.folder)
    progress.finish()
    return hashes


def _with_library(
    checkpoint: Checkpoint, made: Sequence[_Making], device: str, progress: Progress
) -> dict[Path, str]:
    """Have the libraries quantize and save; what they write is then held against the plan."""
    for each in made:
        progress.start(f"{each.plan.name}, with its library", len(each.plan.components), "parts")
        for component in each.plan.components:
            name, backend = component.component, component.backend
            place = each.folder / name
            model = backend.quantize_with_library(
                checkpoint.components[name].path, component.architecture, component.skipped, device
            )
            backend.save_with_library(model, place, component.architecture)
            del model
            for file in place.iterdir():
                file.chmod(0o644)  # the libraries leave their weights unreadable to others
            each.done.append(component)
            progress.advance(1, name)
        progress.finish()
    return {}


def _require_engine(item: VariantPlan, engine: Engine, device: str) -> None:
    if engine == "stream":
        return
    for component in item.components:
        why = component.backend.library_refuses(component.architecture, device)
        if not item.checkpoint.components[component.component].carried:
            why = why or "the libraries read bf16 folders of the diffusers layout, and this is none"
        if why is not None:
            raise MissingRequirement(
                f"{item.backend.name}, {component.component}: {why}; leave out --engine library"
            )


@contextmanager
def full_disk(output: Path) -> Iterator[None]:
    """A disk that is full is an error with a way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull(
            f"{output}: no room left while writing ({error.strerror}); make room and give the same "
            "command again: what is done is kept"
        ) from error


def _allocated(folder: Path) -> int:
    """Bytes that the files of an interrupted run take on the disk; their holes take none."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _copy_carried(each: _Making) -> None:
    for name, path in each.plan.carried.items():
        (each.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, each.folder / name)


def _reopen(each: _Making) -> None:
    """Read back what was written: every stored tensor stands where the plan has it."""
    for component in each.done:
        entries = component_entries(each.folder, component)
        for tensor in component.tensors:
            for stored in tensor.stored:
                entry = entries.get(stored.name)
                if entry is None or not matches(entry, stored):
                    raise RuntimeError(f"{stored.name}: written as {entry}, planned as {stored}")
