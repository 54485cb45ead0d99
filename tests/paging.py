"""Real reports with hostile words in them, for tests of the page and the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fluxconv.converters import Variant
from fluxconv.validators import Report, read_report
from fluxconv.validators.results import Check, Verdict

#: Each would do something if it were not shown as it is.
HOSTILE = (
    '</script><script>document.title="taken"</script><img src=x onerror=alert(1)>',
    "\"><svg onload=alert(2)> 'quoted' & &amp; \u202eright to left\u202c שלום 🦋🏳️‍🌈 {{ 7 * 7 }} "
    + "long " * 1000,
)
NAME = '<b onmouseover="alert(3)">"bold" & \'odd\'</b>'
FAILURE = "steps: relative error <script>alert(4)</script> is more than 0.1"


def report_of(variant: Variant) -> Report:
    """The variant's report."""
    report = read_report(variant)
    assert report is not None
    return report


def as_they_are(variants: Mapping[str, Variant]) -> tuple[list[Report], list[Path]]:
    """The reports of all variants, and their folders."""
    return [report_of(each) for each in variants.values()], [v.root for v in variants.values()]


def hostile(variants: Mapping[str, Variant]) -> tuple[list[Report], list[Path]]:
    """The same with other words: hostile prompts in all, a hostile name and a failed check in one.

    The last one stopped after its weights, so that it has no pictures.
    """
    reports, folders = as_they_are(variants)
    words = dict(zip(reports[0].settings.prompts, HOSTILE, strict=False))
    reports = [_with_prompts(report, words) for report in reports]
    failed = Check(name="steps", value=0.25, limit=0.1, passed=False, text=FAILURE)
    checks = (*reports[1].verdict.checks, failed)
    verdict = Verdict(passed=False, checks=checks)
    reports[1] = reports[1].model_copy(update={"variant": NAME, "verdict": verdict})
    later = dict.fromkeys(("text_encoder", "steps", "pictures", "execution"))
    reports[-1] = reports[-1].model_copy(update=later)
    return reports, folders


def _with_prompts(report: Report, words: Mapping[str, str]) -> Report:
    """The report with other prompts, wherever they stand in it."""
    data = report.model_dump()
    data["settings"]["prompts"] = [words.get(each, each) for each in data["settings"]["prompts"]]
    places = [
        *data["pictures"]["pictures"],
        *(data["text_encoder"] or {"prompts": []})["prompts"],
        *(data["steps"] or {"trajectories": []})["trajectories"],
    ]
    for each in places:
        each["prompt"] = words.get(each["prompt"], each["prompt"])
    return Report.model_validate(data)
