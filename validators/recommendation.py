"""Which variant for whom: those that fit a device's memory, in order of what is preferred."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

from fluxconv.converters.modes import MODES, PLAIN, Mode
from fluxconv.validators.candidates import Candidate, Device, rules, tiny_error
from fluxconv.validators.memory import needed
from fluxconv.validators.results import Performance

Prefer = Literal["quality", "speed", "size"]

#: The modes that are looked at on each device, the first that fits is the usual one. What a CPU or
#: an Apple chip computes in is main memory: moving weights there gains nothing.
_MODES: dict[Device, tuple[str, ...]] = {
    "cuda": (PLAIN, "offload-model", "offload-group"),
    "cpu": (PLAIN,),
    "mps": (PLAIN,),
}
#: Estimates come out up to a tenth below the peaks in `recommendation.yaml`; a test holds that this
#: is enough.
_MARGIN = 1.125


@dataclass(frozen=True)
class Way:
    """One mode to run a candidate in, and what it takes.

    `memory` was measured or is estimated, with an eighth to spare; `main` is what offloading takes
    of main memory beside it, estimated. `seconds` for a picture come from its report, from what
    others published, or are not known.
    """

    mode: Mode
    memory: int
    main: int
    memory_measured: bool
    seconds: float | None
    seconds_measured: bool


@dataclass(frozen=True)
class Suggestion:
    """A candidate that fits, how to run it, and why it stands where it does. `error` is relative,
    and `error_of` says of what."""

    candidate: Candidate
    way: Way
    error: float | None
    error_of: str
    why: str


@dataclass(frozen=True)
class Unfit:
    """A candidate that does not run, or not in this memory; `missing` bytes are lacking then."""

    candidate: Candidate
    why: str
    least: Way | None = None
    missing: int = 0


@dataclass(frozen=True)
class Recommendation:
    """The suggestions, the best first, and what is not among them. `advice` is one sentence."""

    suggestions: tuple[Suggestion, ...]
    unfit: tuple[Unfit, ...]
    advice: str


def recommend(
    candidates: Sequence[Candidate],
    device: Device,
    memory: int | None = None,
    prefer: Prefer = "quality",
) -> Recommendation:
    """Put the candidates in order for a device with so many bytes of memory (None: any number).

    Order is by the error (`quality`), by the time for a picture (`speed`) or by bytes on disk
    (`size`). What fits only layer by layer comes after all else: it takes several times as long.
    Figures of reports count where every candidate has them, measured alike; else all are put in
    order by what is known without.
    """
    unfit: list[Unfit] = []
    fitting: list[tuple[Candidate, Way]] = []
    for candidate in candidates:
        why = candidate.cannot_run(device)
        if why is not None:
            unfit.append(Unfit(candidate, why))
            continue
        ways = _ways(candidate, device)
        enough = [way for way in ways if memory is None or way.memory <= memory]
        if enough:
            fitting.append((candidate, _chosen(enough, prefer)))
        else:
            least = min(ways, key=lambda way: way.memory)
            lacking = least.memory - (memory or 0)
            unfit.append(Unfit(candidate, "it needs more memory", least, lacking))
    errors = _errors([candidate for candidate, _ in fitting])
    suggestions = [
        Suggestion(candidate, way, *error, why=_why(candidate, way, device))
        for (candidate, way), error in zip(fitting, errors, strict=True)
    ]
    suggestions.sort(key=_order(prefer, suggestions))
    return Recommendation(
        tuple(suggestions),
        tuple(sorted(unfit, key=_nearness)),
        _advice(suggestions, unfit, device, memory, prefer),
    )


def size(nbytes: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= scale:
            return f"{nbytes / scale:.2f} {unit}"
    return f"{nbytes / 1e3:.0f} kB"


# Ways to run one candidate ------------------------------------------------------------------------


def _ways(candidate: Candidate, device: Device) -> list[Way]:
    """Every mode in which it could run on the device, the plainest first."""
    compiled = [
        name
        for name, mode in MODES.items()
        if mode.compiles and device == "cuda" and _seconds(candidate, name, device)[0] is not None
    ]
    usual = [name for name in _MODES[device] if _offloading(candidate) != "stays" or name == PLAIN]
    return [_way(candidate, name, device) for name in (*usual, *compiled)]


def _way(candidate: Candidate, name: str, device: Device) -> Way:
    mode = MODES[name]
    need = needed(candidate.parts, device, mode)
    seconds, seconds_measured = _seconds(candidate, name, device)
    measured = _measured(candidate, name, device)
    if measured is not None and measured.memory_peak is not None:
        return Way(mode, measured.memory_peak, need.main, True, seconds, seconds_measured)
    # A chip whose GPU has no memory of its own holds both.
    taken = {"cpu": need.main, "cuda": need.gpu, "mps": need.gpu + need.main}[device]
    if mode.offload and _offloading(candidate) == "whole":
        passing = max(part.loading - part.weights for part in candidate.parts)
        taken = max(taken, passing + sum(part.weights for part in candidate.parts))
    return Way(mode, round(_MARGIN * taken), need.main, False, seconds, seconds_measured)


def _offloading(candidate: Candidate) -> str | None:
    name = candidate.backend.name
    return next((r["does"] for r in rules()["offloading"] if fnmatch(name, r["backends"])), None)


def _measured(candidate: Candidate, mode: str, device: Device) -> Performance | None:
    """What its report says of this mode; a decoded run says nothing of the library's own."""
    for each in candidate.report.performance if candidate.report else ():
        decoded = any(execution.mode == "decoded" for execution in each.execution.values())
        if (each.mode, each.device) == (mode, device) and not decoded:
            return each
    return None


def _seconds(candidate: Candidate, mode: str, device: Device) -> tuple[float | None, bool]:
    measured = _measured(candidate, mode, device)
    if measured is not None and measured.seconds is not None:
        return measured.seconds, True
    if candidate.variant is not None or device != "cuda":
        return None, False
    published = rules()["published"].get(candidate.backend.name, {}).get(mode, {})
    return published.get("seconds"), False


def _chosen(ways: Sequence[Way], prefer: Prefer) -> Way:
    if prefer != "speed":
        return ways[0]
    timed = [way for way in ways if way.seconds is not None]
    return min(timed, key=lambda way: way.seconds or 0) if timed else ways[0]


# Order --------------------------------------------------------------------------------------------


def _errors(candidates: Sequence[Candidate]) -> list[tuple[float | None, str]]:
    """For each, the error that all are compared by, and of what it is."""
    reports = [candidate.report for candidate in candidates]
    if all(r is not None and r.steps is not None for r in reports) and (
        len({(r.settings.model_dump_json(), r.reference) for r in reports if r}) == 1
    ):
        return [(r.steps.relative_rms, "its steps") for r in reports if r and r.steps]
    if all(r is not None and r.weights for r in reports):
        return [
            (max(w.relative_rms for w in r.weights.values()), "its weights")
            for r in reports
            if r and r.weights
        ]
    if all(candidate.variant is None for candidate in candidates):
        what = {"step_error": "the tiny Flux's steps", "weight_error": "the tiny Flux's weights"}
        return [(c.tiny_error, what[tiny_error()]) for c in candidates]
    return [(None, "") for _ in candidates]


def _order(
    prefer: Prefer, suggestions: Sequence[Suggestion]
) -> Callable[[Suggestion], tuple[float, ...]]:
    known = {each.candidate.bits: each.error for each in suggestions if each.error is not None}

    def error(each: Suggestion) -> float:
        if each.error is not None:
            return each.error
        if not known:
            return -each.candidate.bits
        # Not measured: taken for as good as the one of the nearest bits.
        return known[min(known, key=lambda bits: abs(bits - each.candidate.bits))]

    def place(each: Suggestion) -> tuple[float, ...]:
        mode, disk = each.way.mode, float(each.candidate.size)
        layered, way = float(mode.offload == "group"), float(list(MODES).index(mode.name))
        seconds = float("inf") if each.way.seconds is None else each.way.seconds
        return {
            "quality": (layered, error(each), way, disk),
            "speed": (layered, seconds, way, error(each)),
            "size": (layered, disk, way, error(each)),
        }[prefer]

    return place


def _nearness(unfit: Unfit) -> tuple[bool, int, int]:
    return unfit.least is None, unfit.missing, unfit.candidate.size


# Words --------------------------------------------------------------------------------------------


def _why(candidate: Candidate, way: Way, device: Device) -> str:
    whole = _way(candidate, PLAIN, device)
    if way.mode.offload == "model":
        return (
            f"whole it takes {size(whole.memory)}; one component at a time fits, a little slower, "
            f"with {size(way.main)} of main memory"
        )
    if way.mode.offload == "group":
        return (
            f"whole it takes {size(whole.memory)}; only layer by layer fits, several times slower, "
            f"with {size(way.main)} of main memory"
        )
    if way.mode.compiles and way.seconds is not None and whole.seconds is not None:
        return f"compiled in {way.seconds:.3g} s a picture instead of {whole.seconds:.3g} s"
    return "fits whole"


_PREFERRED: dict[Prefer, str] = {
    "quality": "the closest to its source",
    "speed": "the fastest, as far as that is known,",
    "size": "the smallest",
}
_FLAGS = {None: "", "model": " with --offload model", "group": " with --offload group"}


def _advice(
    suggestions: Sequence[Suggestion],
    unfit: Sequence[Unfit],
    device: Device,
    memory: int | None,
    prefer: Prefer,
) -> str:
    room = f"in {size(memory)}" if memory is not None else "there"
    if suggestions:
        first = suggestions[0]
        mode = first.way.mode
        flags = _FLAGS[mode.offload] + (" with --compile" if mode.compiles else "")
        return f"Take {first.candidate.name}{flags}: {_PREFERRED[prefer]} of what runs {room}."
    near = [each for each in unfit if each.least is not None]
    if not near:
        return f"None of them runs on {device}: {unfit[0].why}."
    best = min(near, key=_nearness)
    assert best.least
    return (
        f"Nothing fits {room}: {best.candidate.name}{_FLAGS[best.least.mode.offload]} needs least, "
        f"{size(best.least.memory)}, which is {size(best.missing)} more; draw smaller pictures, or "
        "take a variant of fewer bits."
    )
