"""Which of several files to take: by what was measured of them, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from fluxconv.cards import figures
from fluxconv.cards.escaping import Markdown, code, prose
from fluxconv.cards.facts import Facts
from fluxconv.cards.naming import type_name


def memory_needed(facts: Facts) -> str:
    """The measured peaks of a variant's modes; a dash if its own library ran none."""
    peaks = [
        (mode.mode, mode.memory_peak, mode.device)
        for mode in (facts.report.performance if facts.report else ())
        if mode.memory_peak is not None
        and not any(each.mode == "decoded" for each in mode.execution.values())
    ]
    if not peaks:
        return figures.MISSING
    kinds = {"cpu": "main memory"}
    return ", ".join(
        f"{figures.size(peak)} of {kinds.get(device, 'GPU memory')}"
        + ("" if mode == "plain" else f" ({mode})")
        for mode, peak, device in peaks
    )


def first_choice(own: Sequence[Facts], repository: str) -> Markdown | None:
    """What to try first, in a sentence or two; None where there is nothing to choose from."""
    passed = [facts for facts in own if facts.passed]
    if len(passed) < 2:
        return None
    smallest = min(passed, key=lambda facts: facts.weight_bytes)
    errors = {
        facts.variant.name: facts.report.steps.relative_rms
        for facts in passed
        if facts.report is not None and facts.report.steps is not None
    }
    alike = len({facts.report.settings for facts in passed if facts.report}) == 1
    words = []
    if alike and len(errors) == len(passed):
        closest = min(passed, key=lambda facts: errors[facts.variant.name])
        words.append(
            f"Closest to the source is {code(type_name(closest.variant))} (step error "
            f"{prose(figures.percent(errors[closest.variant.name]))})."
        )
        if smallest is not closest:
            words.append(
                f"The smallest is {code(type_name(smallest.variant))} (step error "
                f"{prose(figures.percent(errors[smallest.variant.name]))})."
            )
    else:
        words.append(f"The smallest is {code(type_name(smallest.variant))}.")
    taken = code(f"fluxconv download {repository} --vram 12GB")
    words.append(
        f"Take the closest that your memory holds; {taken} chooses by these figures and fetches it."
    )
    return Markdown(" ".join(words))
