"""The measured table: one row a variant, one entry of `COLUMNS` a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluxconv.cards import figures
from fluxconv.cards.escaping import Markdown, cell, prose
from fluxconv.cards.facts import Facts


@dataclass(frozen=True)
class Column:
    """A heading and how a variant's value is found; a column of dashes alone is left out."""

    title: str
    value: Callable[[Facts], str]


@dataclass(frozen=True)
class Table:
    """A table, ready to be shown: all of its cells are Markdown; the first `left` columns are
    words and stand at the left, the others are numbers."""

    header: tuple[Markdown, ...]
    rows: tuple[tuple[Markdown, ...], ...]
    left: int = 1


COLUMNS = (
    Column("Quantized weights", lambda f: figures.size(f.weight_bytes)),
    Column("Whole pipeline", lambda f: figures.size(f.total_bytes)),
    Column("Bits per weight", lambda f: f"{f.variant.manifest.bits_per_weight:.2f}"),
    Column("Weight error, transformer", lambda f: figures.percent(f.weight_error("transformer"))),
    Column("Weight error, T5", lambda f: figures.percent(f.weight_error("text_encoder_2"))),
    Column("PSNR", lambda f: figures.psnr(f.report.pictures if f.report else None)),
    Column("SSIM", lambda f: figures.ssim(f.report.pictures if f.report else None)),
    Column("Verdict", lambda f: f.verdict),
)


def measured_table(rows: Sequence[Facts], own: Sequence[Facts]) -> Table:
    """All variants, smallest first; those the card is of (`own`) are set in bold."""
    ordered = sorted(rows, key=lambda facts: (facts.weight_bytes, facts.variant.name))
    columns = [
        column for column in COLUMNS if any(column.value(f) != figures.MISSING for f in ordered)
    ]
    mine = {facts.variant.name for facts in own}
    return Table(
        (Markdown("Variant"), *(prose(column.title) for column in columns)),
        tuple(
            (_label(facts, facts.variant.name in mine), *(prose(c.value(facts)) for c in columns))
            for facts in ordered
        ),
    )


def file_table(rows: Sequence[Facts]) -> Table:
    """The files of a GGUF repository, smallest variant first."""
    header = ("File", "Component", "Type", "Size", "Bits per weight", "Weight error", "Verdict")
    found = []
    for facts in sorted(rows, key=lambda facts: facts.weight_bytes):
        for name, component in facts.components.items():
            found.append(
                (
                    Markdown("<br>".join(cell(file) for file in component.files)),
                    prose(facts.titles[name]),
                    prose(facts.variant.backend.title),
                    prose(figures.size(component.weight_bytes)),
                    prose(f"{component.bits_per_weight:.2f}"),
                    prose(figures.percent(facts.weight_error(name))),
                    prose(facts.verdict),
                )
            )
    return Table(tuple(prose(title) for title in header), tuple(found), left=3)


def _label(facts: Facts, own: bool) -> Markdown:
    text = cell(facts.variant.backend.label)
    if own:
        return Markdown(f"**{text}** (this one)")
    return Markdown(f"[{text}]({facts.address})") if facts.address else text
