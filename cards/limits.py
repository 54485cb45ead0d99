"""What a card does not promise: sentences that follow from the manifest and the reports."""

from __future__ import annotations

from collections.abc import Sequence

from fluxconv.cards.facts import Facts


def limits(own: Sequence[Facts]) -> list[str]:
    """One sentence each, for the variants of a card."""
    found = [
        "It draws what its source draws: what that cannot do, this cannot, and what is wrong or "
        "biased in it is so here."
    ]
    reports = [facts.report for facts in own if facts.report is not None]
    if len(reports) < len(own):
        lacking = [facts.variant.backend.label for facts in own if facts.report is None]
        found.append(f"Nothing was measured of {', '.join(lacking)}.")
    drawn = {
        (len(report.settings.prompts), report.settings.width, report.settings.height)
        for report in reports
        if report.pictures is not None
    }
    for prompts, width, height in sorted(drawn):
        what = f"{prompts} prompts" if prompts != 1 else "one prompt"
        found.append(
            f"It was compared on {what} at {width} x {height} pixels; other prompts, sizes, LoRAs "
            "and ControlNets were not tried."
        )
    devices = sorted({report.device for report in reports})
    if devices == ["cpu"]:
        found.append("Nothing was measured on a GPU.")
    if any(facts.variant.manifest.source.requantized for facts in own):
        found.append("Its source had lost precision already.")
    if any(facts.decoded for facts in own):
        found.append("Not all of it was run by its own library; see above.")
    return found
