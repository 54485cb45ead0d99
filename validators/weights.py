"""The weights layer: every tensor of a variant, decoded, against its source.

Streams in pieces of a million weights: some threads read, decode and compare one each, so that the
layer takes about as long as decoding alone. Quantized tensors are measured (`tensor_errors`) and
judged (`outliers`), all others must equal their source bit by bit.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters import dtypes
from fluxconv.converters.backends import Backend, PlannedTensor
from fluxconv.converters.checkpoint import Checkpoint
from fluxconv.converters.errors import BadInput
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.progress import Progress
from fluxconv.converters.stored import Piece, pieces
from fluxconv.converters.threads import cores, torch_threads
from fluxconv.converters.variant import open_variant
from fluxconv.validators.outliers import outliers
from fluxconv.validators.results import KindError, WeightsResult
from fluxconv.validators.source_rows import SourceRows
from fluxconv.validators.tensor_errors import Measured, Sums, TensorSums, relative, sums_of

if TYPE_CHECKING:
    import torch

_PIECE = 1 << 20  # weights: their fp32 values and differences stay in a few MB
_THREADS = 4  # more would only wait for one another: Python's own part of decoding is serial
_WAITING = 64  # pieces, most of them views of one decoded weight


def compare_weights(
    variant: Path, reference: Checkpoint, progress: Progress
) -> dict[str, WeightsResult]:
    """Compare each quantized component of the variant, opened here, with the reference's.

    Memory holds some pieces, and where a format is decoded whole two weights, whatever the model's
    size. Raises `BadInput` if the reference lacks a component, `MalformedFile` if a tensor is
    missing.
    """
    opened = open_variant(variant)
    plans = opened.component_plans()
    for name in plans:
        if name not in reference.components:
            raise BadInput(f"{reference.opening.path}: has no {name} to compare with")
    weights = sum(spec.numel for plan in plans.values() for spec in plan.specs)
    progress.start(f"Comparing {opened.name}", weights, "weights")
    results = {}
    for name, plan in plans.items():
        comparison = _Comparison(plan, SourceRows(reference.components[name]))
        with torch_threads(1):
            for part in _in_threads(comparison, opened.root):
                comparison.put(part)
                progress.advance(part.weights, part.name)
        results[name] = comparison.result()
    progress.finish()
    return results


@dataclass(frozen=True)
class _Part:
    """Rows of a source tensor, compared: `sums` of a quantized one, else whether they are equal."""

    name: str
    row: int
    weights: int
    sums: Sums | None
    is_equal: bool = True


def _in_threads(comparison: _Comparison, root: Path) -> Iterator[_Part]:
    """The parts of all pieces, in order; a few pieces are in work at once."""
    waiting: deque[Future[list[_Part]]] = deque()
    with ThreadPoolExecutor(min(_THREADS, cores()), thread_name_prefix="compare") as pool:
        try:
            for number, piece in enumerate(pieces(root, comparison.plan, _PIECE)):
                waiting.append(pool.submit(comparison.parts, piece))
                # The first imports the library, and some are not fit for use meanwhile.
                while len(waiting) > (_WAITING if number else 0):
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass
class _Comparison:
    """One component, and what was found so far."""

    plan: ComponentPlan
    source: SourceRows
    sums: dict[str, TensorSums] = field(default_factory=dict)
    kept: dict[str, tuple[str, bool]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for spec in self.plan.specs:
            there = self.source.shapes.get(spec.name)
            planned = self.plan.by_source[spec.name][0][0]
            if there != spec.shape:
                found = list(there) if there else "missing"
                self.problems.append(
                    f"'{spec.name}' is {list(spec.shape)} here and {found} in the reference"
                )
            elif planned.quantized:
                kind = stored_type(self.plan.backend, planned)
                self.sums[spec.name] = TensorSums(spec.name, kind, spec.shape)
            else:
                self.kept[spec.name] = (planned.stored[0].dtype, True)

    def parts(self, piece: Piece) -> list[_Part]:
        """Decode a piece, read its source and compare them; in any thread."""
        decoded = piece.decode()
        found, at = [], 0
        for part in piece.planned.target.slices:
            # The rows of this slice that are in the piece, as rows of the target.
            first, last = max(at, piece.start), min(at + part.stop - part.start, piece.stop)
            if first < last and (part.tensor in self.sums or part.tensor in self.kept):
                row = part.start + first - at
                source = self.source.read(part.tensor, row, row + last - first)
                mine = decoded[first - piece.start : last - piece.start]
                found.append(self._compared(part.tensor, row, mine, source))
            at += part.stop - part.start
        return found

    def _compared(self, name: str, row: int, decoded: torch.Tensor, source: torch.Tensor) -> _Part:
        part = partial(_Part, name, row, source.numel())
        if name in self.kept:
            return part(None, _is_equal(decoded, source, self.kept[name][0]))
        if source.ndim == 1:
            decoded, source = decoded[None], source[None]
        return part(sums_of(decoded, source))

    def put(self, part: _Part) -> None:
        """Take in what was compared; in one thread."""
        if part.sums is not None:
            self.sums[part.name].add(part.row, part.sums)
        elif not part.is_equal:
            self.kept[part.name] = (self.kept[part.name][0], False)

    def result(self) -> WeightsResult:
        """What follows when all parts are in."""
        measured = [sums.measured() for sums in self.sums.values()]
        finite = [each for each in measured if each.is_finite]
        problems = [
            f"'{each.error.name}' decodes to NaN or infinity"
            for each in measured
            if not each.is_finite
        ]
        problems += [
            f"'{name}' is kept in {dtype} and differs from its source"
            for name, (dtype, is_equal) in self.kept.items()
            if not is_equal
        ]
        weighted = getattr(self.plan.backend.options, "importance", None) is not None
        stretches = [each.worst_stretch for each in finite if each.worst_stretch]
        return WeightsResult(
            relative_rms=_together(finite),
            tensors=tuple(each.error for each in finite),
            kinds=tuple(_kinds(finite)),
            kept=len(self.kept),
            worst_stretch=max(stretches, key=lambda found: found.relative_rms, default=None),
            problems=(*self.problems, *problems, *outliers(finite, weighted=weighted)),
        )


def stored_type(backend: Backend, planned: PlannedTensor) -> str:
    """What to call the type of a quantized tensor: the container's own where it says all, else the
    backend's name."""
    return planned.stored[0].dtype if len(planned.stored) == 1 else backend.name


def _is_equal(decoded: torch.Tensor, source: torch.Tensor, dtype: str) -> bool:
    import torch

    expected = source.to(dtypes.torch_dtype(dtype)).contiguous().view(torch.uint8)
    return torch.equal(decoded.contiguous().view(torch.uint8), expected)


def _kinds(tensors: Sequence[Measured]) -> Iterator[KindError]:
    by_kind = defaultdict(list)
    for each in tensors:
        by_kind[re.sub(r"(?<=\.)\d+(?=\.)", "*", each.error.name, count=1)].append(each)
    for name, them in by_kind.items():
        yield KindError(
            name=name,
            tensors=len(them),
            weights=sum(each.error.weights for each in them),
            relative_rms=_together(them),
        )


def _together(tensors: Sequence[Measured]) -> float:
    return relative(
        sum(each.error_sum for each in tensors), sum(each.source_sum for each in tensors)
    )
