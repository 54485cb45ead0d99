"""The words of a collection, within the Hub's limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fluxconv.cards import figures
from fluxconv.cards.escaping import one_line
from fluxconv.cards.facts import Facts, facts_of
from fluxconv.cards.naming import shares_repository, type_name
from fluxconv.cards.rendering import render_plain
from fluxconv.converters.errors import UsageError
from fluxconv.converters.variant import Variant

#: Limits of the Hub, in characters.
MAX_TITLE, MAX_DESCRIPTION, MAX_NOTE = 60, 150, 500
#: How a description that fluxconv wrote ends; any other is somebody's own.
SIGNATURE = "Made with fluxconv."
_OUTCOMES = {
    "passed": "Passed validation.",
    "failed": "Did not pass validation.",
    "not validated": "Not validated.",
}


def collection_title(title: str) -> str:
    """The title, on one line; raises `UsageError` if it is empty or too long for the Hub."""
    title = one_line(title)
    if not title:
        raise UsageError("a collection needs a title")
    if len(title) > MAX_TITLE:
        raise UsageError(
            f"the collection's title has {len(title)} characters, and the Hub takes {MAX_TITLE}"
        )
    return title


def collection_description(variants: Sequence[Variant], *, validated: bool = True) -> str:
    """What the collection holds, in at most 150 characters."""
    sources = {one_line(variant.manifest.source.id) for variant in variants}
    source = sources.pop() if len(sources) == 1 else "several Flux checkpoints"
    facts = [facts_of(variant, validated=validated) for variant in variants]
    values = {"all_passed": all(f.passed for f in facts), "signature": SIGNATURE}
    whole = render_plain("collection.jinja", {**values, "source": source})
    if len(whole) <= MAX_DESCRIPTION:
        return whole
    source = f"{source[: MAX_DESCRIPTION - len(whole) + len(source) - 1]}…"
    return render_plain("collection.jinja", {**values, "source": source})


def item_note(variants: Sequence[Variant], *, validated: bool = True) -> str:
    """What one repository holds, in at most 500 characters: a sentence for each variant in it."""
    told = [_told(facts_of(variant, validated=validated)) for variant in variants]
    note = render_plain("note.jinja", {"variants": told})
    return note if len(note) <= MAX_NOTE else note[: MAX_NOTE - 1] + "…"


def _told(facts: Facts) -> dict[str, Any]:
    backend = facts.variant.backend
    is_gguf = shares_repository(facts.variant)
    pictures = facts.report.pictures if facts.report else None
    summary = pictures.summary if pictures else {}
    return {
        "called": f"GGUF {type_name(facts.variant)}" if is_gguf else backend.title,
        "size": figures.size(facts.total_bytes),
        "bits": f"{facts.variant.manifest.bits_per_weight:.2f}",
        "scores": [
            f"{score.title} {score.text(summary[score.name])}"
            for score in (figures.PSNR, figures.SSIM)
            if score.name in summary
        ],
        "outcome": _OUTCOMES[facts.verdict],
    }
