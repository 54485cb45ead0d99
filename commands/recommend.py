"""`fluxconv recommend`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from fluxconv.commands.output import Output, output_options, size
from fluxconv.converters.errors import UsageError

if TYPE_CHECKING:
    from fluxconv.validators.candidates import Candidate, Device
    from fluxconv.validators.recommendation import Prefer, Recommendation, Suggestion, Way

_AMOUNT = re.compile(r"(\d{1,7}(?:\.\d{1,3})?) ?([KMGT]i?B)?", re.IGNORECASE)
_UNITS = {
    f"{k}{i}b": (1024 if i else 1000) ** n for n, k in enumerate("kmgt", 1) for i in ("", "i")
}
#: Rows of a table, unless all are asked for.
_SHOWN = 8
_HEADINGS = ("take", ">on disk", "mode", ">memory", ">a picture", ">error", "why")


@click.command("recommend")
@click.argument("variants", nargs=-1, metavar="[VARIANT_OR_FOLDER]...")
@click.option(
    "--vram",
    metavar="SIZE",
    help="Memory there is, such as 12GB or 11.5GiB: the GPU's, or the machine's without one; less "
    "what else runs there [that of the GPU here, else any].",
)
@click.option(
    "--device", type=click.Choice(["cuda", "cpu", "mps"]), default="cuda", show_default=True
)
@click.option(
    "--prefer",
    type=click.Choice(["quality", "speed", "size"]),
    default="quality",
    show_default=True,
    help="What counts most among those that fit.",
)
@click.option("--all", "everything", is_flag=True, help=f"Show more than the first {_SHOWN}.")
@output_options
def command(
    out: Output,
    variants: tuple[str, ...],
    vram: str | None,
    device: Device,
    prefer: Prefer,
    everything: bool,
) -> None:
    """Which variant for which machine: those that fit, the best first, and how to run them.

    From the variants and reports at hand; with none given, from what every backend makes of
    FLUX.1-dev."""
    memory = amount(vram) if vram is not None else _memory_here(device)
    from fluxconv.validators.candidates import from_variant, of_flux_dev, variants_at
    from fluxconv.validators.recommendation import recommend

    if variants:
        candidates = [from_variant(variant, device) for variant in variants_at(variants)]
    else:
        candidates = of_flux_dev(device)
    found = recommend(candidates, device, memory, prefer)
    notes = _notes(candidates, found)
    data = {
        "device": device,
        "memory": memory,
        "prefer": prefer,
        "advice": found.advice,
        "notes": notes,
        "recommended": [_suggestion(each) for each in found.suggestions],
        "others": [
            {
                "name": each.candidate.name,
                "backend": each.candidate.backend.label,
                "why": each.why,
                "least": _way(each.least) if each.least else None,
                "missing": each.missing,
            }
            for each in found.unfit
        ],
    }
    out.result(data, lambda: _show(out, found, notes, None if everything else _SHOWN))


def amount(text: str) -> int:
    """Bytes of an amount of memory as people write it; raises `UsageError`."""
    match = _AMOUNT.fullmatch(text.strip())
    if not match:
        raise UsageError(f"--vram {text}: is no amount of memory; give one such as 12GB")
    if not match[2]:
        raise UsageError(f"--vram {text}: has no unit; give {match[1]}GB if that is meant")
    found = int(float(match[1]) * _UNITS[match[2].lower()])
    if not found:
        raise UsageError(f"--vram {text}: is no memory at all; give an amount such as 12GB")
    return found


def _memory_here(device: Device) -> int | None:
    from fluxconv.converters.backends import has_cuda

    if device != "cuda" or not has_cuda():
        return None
    from fluxconv.validators.machine import this_machine

    return this_machine(device).gpu_memory


def _notes(candidates: list[Candidate], found: Recommendation) -> list[str]:
    """What the figures are, one sentence each."""
    notes = []
    if any(each.variant is None for each in candidates):
        from fluxconv.validators.candidates import settings_of_flux_dev

        drawn = settings_of_flux_dev()
        notes.append(
            "Nothing of this was measured on FLUX.1-dev: sizes are exact, and memory is estimated "
            f"for pictures of {drawn.width} x {drawn.height}, with an eighth to spare."
        )
        if found.suggestions and found.suggestions[0].error is not None:
            notes.append(f"Errors are those of {found.suggestions[0].error_of}.")
        if any(each.way.seconds is not None for each in found.suggestions):
            notes.append(
                "Seconds are those of the diffusers guide to quantization, 50 steps on an H100; "
                "yours will differ."
            )
        notes.append(
            "fluxconv quantize black-forest-labs/FLUX.1-dev --backend NAME makes one; give "
            "validated ones to this command for figures of your own."
        )
    elif any(each.report is None for each in candidates):
        names = ", ".join(each.name for each in candidates if each.report is None)
        notes.append(f"Without a report that belongs to them, judged by size alone: {names}.")
    return notes


def _show(out: Output, found: Recommendation, notes: list[str], shown: int | None) -> None:
    if found.suggestions:
        out.table("", _HEADINGS, [_row(each) for each in found.suggestions[:shown]])
    if found.unfit:
        out.table(
            "",
            ("not here", ">on disk", ">least memory", ">missing", "why"),
            [
                (
                    each.candidate.name,
                    size(each.candidate.size),
                    size(each.least.memory) if each.least else "",
                    size(each.missing) if each.least else "",
                    f"{each.why}, even with {each.least.mode.title}"
                    if each.least and each.least.mode.offload
                    else each.why,
                )
                for each in found.unfit[:shown]
            ],
        )
    more = sum(max(0, len(rows) - len(rows[:shown])) for rows in (found.suggestions, found.unfit))
    if more:
        out.line(f"... and {more} more, which --all shows.")
    out.line(found.advice)
    for note in notes:
        out.line(note)


def _row(each: Suggestion) -> tuple[str, ...]:
    return (
        each.candidate.name,
        size(each.candidate.size),
        each.way.mode.name,
        size(each.way.memory) if each.way.memory_measured else f"~ {size(each.way.memory)}",
        "" if each.way.seconds is None else f"{each.way.seconds:.3g} s",
        "" if each.error is None else f"{100 * each.error:.2g} %",
        each.why,
    )


def _suggestion(each: Suggestion) -> dict[str, Any]:
    variant = each.candidate.variant
    return {
        "name": each.candidate.name,
        "path": str(variant.root) if variant else None,
        "backend": each.candidate.backend.label,
        "size": each.candidate.size,
        "bits_per_weight": each.candidate.bits,
        **_way(each.way),
        "error": each.error,
        "error_of": each.error_of or None,
        "why": each.why,
    }


def _way(way: Way) -> dict[str, Any]:
    return {
        "mode": way.mode.name,
        "memory": way.memory,
        "memory_measured": way.memory_measured,
        "main_memory": way.main if way.mode.offload else None,
        "seconds": way.seconds,
        "seconds_measured": way.seconds_measured if way.seconds is not None else None,
    }
