"""The streaming loop: every source tensor is read once and every variant takes its share of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.backends import PlannedTensor
from fluxconv.converters.codec import encode_target, is_plain
from fluxconv.converters.component import Component
from fluxconv.converters.errors import BadWeight, SourceChanged
from fluxconv.converters.journal import Journal, Weight, Written
from fluxconv.converters.layout import LayoutWriter, StoredTensor
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.progress import Progress
from fluxconv.converters.reader import ComponentReader, Read
from fluxconv.converters.settling import needs_settling
from fluxconv.converters.threads import cores, torch_threads
from fluxconv.converters.write_behind import WriteBehind

if TYPE_CHECKING:
    import torch

_PIECE = 1 << 20  # weights encoded at once where rows stand alone: what they need stays in cache
_ENCODERS = 4  # more would wait for room to read into


@dataclass(frozen=True)
class Output:
    """Where one component of one variant goes; `parts` is what the journals of others name as
    written."""

    plan: ComponentPlan
    writer: LayoutWriter
    journal: Journal
    parts: Mapping[Weight, Written]


def stream_component(
    component: Component,
    outputs: Sequence[Output],
    device: str,
    progress: Progress,
    *,
    whole: bool = True,
) -> Mapping[Path, str]:
    """Write one component of every variant in one pass; returns the sha256 of each file read.

    Reading, encoding and writing overlap. Memory holds a few source tensors and what is encoded
    from them, whatever the model's size and the number of variants. Weights that a journal has are
    read, for the hash, and not encoded again. If not `whole`, only what the component's steps need
    is read, and there are no hashes of files. Raises `BadWeight` naming a tensor with NaN or
    infinity, `SourceChanged` if what a journal has was made from other weights.
    """
    reader = ComponentReader(component, pinned=device != "cpu", whole=whole)
    # Pieces side by side, and not on torch's own threads: those wait for one another in a busy
    # loop, and where the reader or the writer has their core, all takes four times as long.
    encoders = min(cores(), _ENCODERS) if device == "cpu" else 1
    # What bitsandbytes' double quantization sums, it sums in as many parts as there are threads:
    # the last bits must not tell how many cores a machine has.
    exact = any(needs_settling(output.plan) for output in outputs)
    pending: deque[Future[_Step]] = deque()
    with (
        WriteBehind() as writing,
        torch_threads(1 if exact else (cores() - 2) // encoders),
        ThreadPoolExecutor(encoders, "encoder") as pool,
    ):
        try:
            for read in reader:
                step = pool.submit(_begin, read, component, outputs, device, writing, pool)
                pending.append(step)
                while len(pending) > encoders:
                    progress.advance(*pending.popleft().result().ended())
            while pending:
                progress.advance(*pending.popleft().result().ended())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return reader.hashes


@dataclass(frozen=True)
class _Step:
    """What became available, on its way: bytes read, the name of the last weight, the pieces."""

    nbytes: int
    name: str
    pieces: list[Future[int]]

    def ended(self) -> tuple[int, str]:
        """Wait for all pieces; raises what any of them raised."""
        for piece in self.pieces:
            piece.result()
        return self.nbytes, self.name


def _begin(
    read: Read,
    component: Component,
    outputs: Sequence[Output],
    device: str,
    writing: WriteBehind,
    pool: ThreadPoolExecutor,
) -> _Step:
    """Have what became available encoded piece by piece; the last to end hands it back."""
    pieces: list[Future[int]] = []
    records: list[Callable[[], None]] = []
    name = read.names[-1] if read.names else ""
    try:
        lacking = {
            name: [each for each in outputs if not _is_done(each, name, read)]
            for name in read.names
        }
        # Weights are made as they are asked for: if nobody needs any, none is.
        for name, weight in read.weights if any(lacking.values()) else ():
            if lacking[name]:
                _check_finite(weight, name, component.path)
                on_device = weight.to(device, non_blocking=True)
            for output in lacking[name]:
                sizes: dict[str, int] = {}
                jobs = _jobs(output, name, on_device, sizes, writing)
                begun = [pool.submit(job) for job in jobs]
                records.append(partial(_record, output, name, read.digest, begun, sizes))
                pieces += begun
    finally:
        _after(pieces, partial(_end, pieces, records, read, writing))
    return _Step(read.nbytes, name, pieces)


def _after(pieces: Sequence[Future[int]], then: Callable[[], None]) -> None:
    """Call `then` when all pieces have ended, in the thread of the last one."""
    left, lock = len(pieces), threading.Lock()

    def ended(piece: Future[int]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = not left
        if last:
            then()

    for piece in pieces:
        piece.add_done_callback(ended)
    if not pieces:
        then()


def _end(
    pieces: Sequence[Future[int]],
    records: Sequence[Callable[[], None]],
    read: Read,
    writing: WriteBehind,
) -> None:
    """Behind the pieces, whatever became of them, the reader gets its memory back: it must not wait
    for room where nobody waits for it."""
    if any(piece.cancelled() or piece.exception() for piece in pieces):
        read.release()
        return
    for record in records:
        writing.put(0, record)
    writing.put(0, read.release)


def _is_done(output: Output, weight: str, read: Read) -> bool:
    component, journal = output.plan.component, output.journal
    before = journal.digest(component, weight)
    if before is not None:
        if before != read.digest:
            raise SourceChanged(
                f"{weight}: is not what it was when the interrupted run read it; the same command "
                "will start over"
            )
        return True
    theirs = output.parts.get((component, weight))
    if theirs is None or theirs.digest != read.own():
        return False
    journal.add(component, weight, read.digest, 0, theirs.sizes)
    return True


def _jobs(
    output: Output,
    source: str,
    weight: torch.Tensor,
    sizes: dict[str, int],
    writing: WriteBehind,
) -> Iterator[Callable[[], int]]:
    """Each encodes a piece of the weight, hands it to the writer and returns its bytes; true sizes
    that the plan could only bound go into `sizes`."""
    plan = output.plan

    def encode(planned: PlannedTensor, piece: torch.Tensor, start: int) -> int:
        encoded, total = encode_target(plan.backend, planned, piece), 0
        for stored in planned.stored:
            data = encoded.pop(stored.name)
            at = start * stored.nbytes // planned.target.shape[0]
            _check_size(stored, data.nbytes, piece.shape[0], planned)
            if not stored.settled:
                sizes[stored.name] = data.nbytes
            writing.put(data.nbytes, partial(_write, output.writer, stored.name, data, at))
            total += data.nbytes
        if encoded:
            raise RuntimeError(f"{planned.name}: not in the plan: {', '.join(encoded)}")
        return total

    for planned, part, row in plan.by_source[source]:
        for piece, start in _pieces(plan, planned, weight[part.start : part.stop]):
            yield partial(encode, planned, piece, row + start)


def _record(
    output: Output, source: str, digest: str, pieces: Sequence[Future[int]], sizes: dict[str, int]
) -> None:
    total = sum(piece.result() for piece in pieces)
    output.journal.add(output.plan.component, source, digest, total, sizes)
    output.journal.sync(output.writer.sync)


def _pieces(
    plan: ComponentPlan, planned: PlannedTensor, rows: torch.Tensor
) -> Iterator[tuple[torch.Tensor, int]]:
    """The rows in pieces that may be encoded one by one, each with its first row."""
    if not (plan.backend.rows_alone or is_plain(planned)):
        yield rows, 0
        return
    count = max(1, _PIECE * rows.shape[0] // max(1, rows.numel()))
    for start in range(0, rows.shape[0], count):
        yield rows[start : start + count], start


def _write(writer: LayoutWriter, name: str, data: torch.Tensor, at: int) -> None:
    writer.write(name, as_bytes(data), at)


def _check_size(stored: StoredTensor, nbytes: int, rows: int, planned: PlannedTensor) -> None:
    share = stored.nbytes * rows // planned.target.shape[0]
    if nbytes != share and (stored.settled or nbytes > share):
        raise RuntimeError(f"{stored.name}: encoded to {nbytes} bytes where the plan has {share}")


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of `tensor` as safetensors and GGUF hold them: contiguous, on the CPU."""
    import torch

    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _check_finite(weight: torch.Tensor, name: str, where: Path) -> None:
    import torch

    if not weight.numel():
        return
    # The least and the greatest value are NaN if any value is; this is one quick pass.
    ends = torch.stack(torch.aminmax(weight))
    if not bool(torch.isfinite(ends).all()):
        kind = "NaN" if bool(torch.isnan(ends).any()) else "infinity"
        raise BadWeight(f"{where}: '{name}' contains {kind}; this checkpoint cannot draw")
