"""What a card shows of all that was measured: sizes, outputs, memory and time, blind tests.

Figures stand in one table only if they were measured alike: outputs with the same settings on the
same kind of device, memory and seconds also on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fluxconv.cards import figures
from fluxconv.cards.blind_tests import Outcome, outcomes
from fluxconv.cards.escaping import Markdown, prose
from fluxconv.cards.facts import Facts
from fluxconv.cards.tables import Column, Table, by_size, size_table, tabulate
from fluxconv.validators.report import Report
from fluxconv.validators.results import NoiseFloor, Performance, Summary


@dataclass(frozen=True)
class Part:
    """One table of a card, with the words around it."""

    title: str
    table: Table
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Output:
    """What is known of the outputs of one row."""

    text: float | None = None
    steps: float | None = None
    scores: Mapping[str, Summary] = field(default_factory=dict)


def _score(score: figures.Score) -> Column[Output]:
    return Column(score.title, lambda row: score.text(row.scores.get(score.name)), score.explained)


OUTPUTS: tuple[Column[Output], ...] = (
    Column(
        "Text error",
        lambda row: figures.percent(row.text),
        "relative error of T5's hidden states",
    ),
    Column(
        "Step error",
        lambda row: figures.percent(row.steps),
        "relative error of what the transformer predicts at a step, from the very input that the "
        "source had",
    ),
    *map(_score, figures.SCORES),
)
PERFORMANCE: tuple[Column[Performance], ...] = (
    Column("Memory after loading", lambda mode: figures.memory(mode.memory_loaded)),
    Column("Peak memory", lambda mode: figures.memory(mode.memory_peak)),
    Column("One picture", lambda mode: figures.seconds(mode.seconds)),
    Column("Compiling", lambda mode: figures.seconds(mode.compile_seconds)),
)


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"


BLIND_TESTS: tuple[Column[Outcome], ...] = (
    Column("Shown", lambda outcome: outcome.mode),
    Column("Results", lambda outcome: str(outcome.sittings)),
    Column("Rounds", lambda outcome: str(outcome.rounds)),
    Column("Right", lambda outcome: f"{outcome.right} ({_whole(outcome.share)})"),
    Column("95 % interval", lambda outcome: " to ".join(map(_whole, outcome.interval))),
    Column("By guessing", lambda outcome: _whole(outcome.chance)),
)


def measured(rows: Sequence[Facts], own: Sequence[Facts]) -> list[Part]:
    """The parts of a card's "Measured" that have something to show, for the variants `rows`, of
    which the card is about `own`."""
    base = next((facts.report for facts in (*own, *rows) if facts.report is not None), None)
    parts = [_sizes(rows, own)]
    if base is not None:
        parts += [_outputs(rows, own, base), _performance(rows, own, base)]
    parts += [_blind_tests(rows, own)]
    return [part for part in parts if part is not None]


def _sizes(rows: Sequence[Facts], own: Sequence[Facts]) -> Part | None:
    table = size_table(rows, own)
    return Part("", table, after=_explained(table)) if table else None


def _outputs(rows: Sequence[Facts], own: Sequence[Facts], base: Report) -> Part | None:
    alike, apart = _apart(rows, lambda r: r.settings == base.settings and r.device == base.device)
    found = [(label, _output(facts)) for label, facts in by_size(alike, own)]
    noise = _noise(base.noise_floor) if base.noise_floor else []
    table = tabulate([*found, *noise], OUTPUTS)
    if table is None:
        return None
    words = [_explained(table)]
    if base.noise_floor is not None and noise:
        words.append(
            prose(
                "The rows of the source are the noise floor, what differs although nothing was "
                f"quantized; over the first {_pictures(base.noise_floor.pictures)}."
            )
        )
    return Part("What comes out", table, after=Markdown(" ".join([*words, *apart])))


def _performance(rows: Sequence[Facts], own: Sequence[Facts], base: Report) -> Part | None:
    alike, apart = _apart(
        rows,
        lambda r: (r.settings, r.device, r.machine) == (base.settings, base.device, base.machine),
    )
    found = [
        (_in_mode(label, mode), mode)
        for label, facts in by_size(alike, own)
        for mode in (facts.report.performance if facts.report else ())
        if mode.seconds is not None
    ]
    if not found:
        return None
    found += [
        (_in_mode(Markdown("*the source*"), mode), mode)
        for mode in base.source_performance
        if mode.seconds is not None
    ]
    table = tabulate(found, PERFORMANCE)
    if table is None:
        return None
    drawn = base.settings
    memory = (
        "memory is the resident memory of the process"
        if base.device == "cpu"
        else "memory is what torch has allocated on the GPU"
    )
    words = [
        prose(
            f"On {figures.machine(base.machine)}; {drawn.width} x {drawn.height} pixels, "
            f"{drawn.steps} steps; {memory}."
        )
    ]
    if any(_is_decoded(mode) for _, mode in found):
        words.append(
            Markdown(
                "What was decoded ran as a plain bf16 model: these rows say nothing of how its own "
                "library runs it."
            )
        )
    return Part("Memory and time", table, after=Markdown(" ".join([*words, *apart])))


def _blind_tests(rows: Sequence[Facts], own: Sequence[Facts]) -> Part | None:
    found = [
        (label, outcome)
        for label, facts in by_size(rows, own)
        for outcome in outcomes(facts.blind_tests)
    ]
    table = tabulate(found, BLIND_TESTS)
    if table is None:
        return None
    said = [_said(facts, outcome) for facts in own for outcome in outcomes(facts.blind_tests)]
    return Part(
        "Blind test",
        table,
        before=Markdown(
            "People were shown pictures of the source and of the variant, from the same prompt and "
            "seed, in random order, and asked which is the original's."
        ),
        after=Markdown(" ".join(said)),
    )


def _said(facts: Facts, outcome: Outcome) -> Markdown:
    verdict = (
        "more often than guessing would: the difference can be seen"
        if outcome.is_told_apart
        else "which guessing may give as well: no difference could be shown"
    )
    return prose(
        f"{facts.variant.backend.label}, {outcome.mode}: right in {outcome.right} of "
        f"{outcome.rounds}, {verdict}."
    )


def _apart(
    rows: Sequence[Facts], is_alike: Callable[[Report], bool]
) -> tuple[list[Facts], list[Markdown]]:
    """The variants whose reports are alike, and a sentence on those whose are not, if any."""
    reported = [(facts, is_alike(facts.report)) for facts in rows if facts.report is not None]
    others = [facts.variant.backend.label for facts, alike in reported if not alike]
    words = f"Not in this table, because otherwise measured: {', '.join(others)}."
    return [facts for facts, alike in reported if alike], [prose(words)] if others else []


def _output(facts: Facts) -> Output:
    report = facts.report
    if report is None:
        return Output()
    return Output(
        report.text_encoder.relative_rms if report.text_encoder else None,
        report.steps.relative_rms if report.steps else None,
        report.pictures.summary if report.pictures else {},
    )


def _pictures(count: int) -> str:
    return f"{count} pictures" if count != 1 else "picture"


def _noise(floor: NoiseFloor) -> list[tuple[Markdown, Output]]:
    rows = [(Markdown("*the source, drawn again*"), Output(scores=floor.again))]
    if floor.other is not None or floor.steps_rms is not None:
        label = Markdown(f"*the source in {prose(floor.dtype or 'another type')}*")
        rows.append((label, Output(steps=floor.steps_rms, scores=floor.other or {})))
    return [row for row in rows if row[1] != Output()]


def _in_mode(label: Markdown, mode: Performance) -> Markdown:
    named = [mode.mode] if mode.mode != "plain" else []
    named += ["decoded"] if _is_decoded(mode) else []
    return Markdown(", ".join([label, *map(prose, named)]))


def _is_decoded(mode: Performance) -> bool:
    return any(execution.mode == "decoded" for execution in mode.execution.values())


def _explained(table: Table) -> Markdown:
    return Markdown(" ".join(f"*{prose(title)}*: {prose(what)}." for title, what in table.notes))
