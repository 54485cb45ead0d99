"""Tables of a card: a row a variant, an entry of `Column`s a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fluxconv.cards import figures
from fluxconv.cards.choosing import memory_needed
from fluxconv.cards.escaping import Markdown, cell, prose
from fluxconv.cards.facts import Facts
from fluxconv.cards.naming import type_name

T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """A heading and how a row's value is found; a column of dashes alone is left out.

    `explained` says what the figure is, for the words under the table.
    """

    title: str
    value: Callable[[T], str]
    explained: str = ""


@dataclass(frozen=True)
class Table:
    """A table, ready to be shown: all of its cells are Markdown; the first `left` columns are
    words and stand at the left, the others are numbers. `notes` explain the columns that are there.
    """

    header: tuple[Markdown, ...]
    rows: tuple[tuple[Markdown, ...], ...]
    left: int = 1
    notes: tuple[tuple[str, str], ...] = ()


SIZES: tuple[Column[Facts], ...] = (
    Column("Quantized weights", lambda f: figures.size(f.weight_bytes)),
    Column("Whole pipeline", lambda f: figures.size(f.total_bytes)),
    Column("Bits per weight", lambda f: f"{f.variant.manifest.bits_per_weight:.2f}"),
    Column(
        "Weight error, transformer",
        lambda f: figures.percent(f.weight_error("transformer")),
        "the root mean square of what quantization changed, over that of the source's weights",
    ),
    Column(
        "Weight error, T5",
        lambda f: figures.percent(f.weight_error("text_encoder_2")),
        "the same of the text encoder",
    ),
    Column("Verdict", lambda f: f.verdict),
)


def tabulate(rows: Sequence[tuple[Markdown, T]], columns: Sequence[Column[T]]) -> Table | None:
    """The rows, each with its label; columns without a figure are left out, None if all are."""
    shown = [
        column for column in columns if any(column.value(row) != figures.MISSING for _, row in rows)
    ]
    if not shown:
        return None
    return Table(
        (Markdown("Variant"), *(prose(column.title) for column in shown)),
        tuple((label, *(prose(column.value(row)) for column in shown)) for label, row in rows),
        notes=tuple((column.title, column.explained) for column in shown if column.explained),
    )


def by_size(rows: Sequence[Facts], own: Sequence[Facts]) -> list[tuple[Markdown, Facts]]:
    """All variants with their labels, smallest first; those that the card is of (`own`) in bold."""
    mine = {facts.variant.name for facts in own}
    ordered = sorted(rows, key=lambda facts: (facts.weight_bytes, facts.variant.name))
    here = "here" if len(mine) > 1 else "this one"
    return [
        (_label(facts, here if facts.variant.name in mine else None), facts) for facts in ordered
    ]


def size_table(rows: Sequence[Facts], own: Sequence[Facts]) -> Table | None:
    """How large every variant is, how far its weights are from the source's, and its verdict."""
    return tabulate(by_size(rows, own), SIZES)


def file_table(rows: Sequence[Facts]) -> Table:
    """The files of a GGUF repository, smallest variant first."""
    header = (
        "File",
        "Component",
        "Type",
        "Size",
        "Bits per weight",
        "Weight error",
        "Memory, whole pipeline",
        "Verdict",
    )
    found = []
    for facts in sorted(rows, key=lambda facts: facts.weight_bytes):
        for name, component in facts.components.items():
            found.append(
                (
                    Markdown("<br>".join(cell(file) for file in component.files)),
                    prose(facts.titles[name]),
                    cell(type_name(facts.variant)),
                    prose(figures.size(component.weight_bytes)),
                    prose(f"{component.bits_per_weight:.2f}"),
                    prose(figures.percent(facts.weight_error(name))),
                    prose(memory_needed(facts)),
                    prose(facts.verdict),
                )
            )
    return Table(tuple(prose(title) for title in header), tuple(found), left=3)


def _label(facts: Facts, here: str | None) -> Markdown:
    text = cell(facts.variant.backend.label)
    if here is not None:
        return Markdown(f"**{text}** ({here})")
    return Markdown(f"[{text}]({facts.address})") if facts.address else text
