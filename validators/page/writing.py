"""Puts `report.html` together: numbers, pictures, styles and scripts in one file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fluxconv.converters.progress import Progress
from fluxconv.validators.blind_test import CHANCE
from fluxconv.validators.comparison import Comparison
from fluxconv.validators.page import PAGE_VERSION, details, figures
from fluxconv.validators.page.charts import Chart
from fluxconv.validators.page.drawings import TITLES, drawn
from fluxconv.validators.page.labels import short_names
from fluxconv.validators.page.pictures import QUALITY, Pool, is_lossless
from fluxconv.validators.page.shots import Shots, shots_of
from fluxconv.validators.page.table import comparison_table, metrics_of

_HERE = Path(__file__).parent
_STYLES = ("page", "tables", "pictures", "charts", "game", "print")
_SCRIPTS = ("page", "tables", "pictures", "zoom", "charts", "statistics", "game", "result")


def write_page(
    comparison: Comparison, folders: Sequence[Path], file: Path, progress: Progress
) -> None:
    """Write the page of a comparison; `folders` hold the variants' pictures, in its order.

    Pictures are encoded while the page is written, so that memory does not hold them all. Raises
    `BadInput` if a picture is missing or garbled.
    """
    comparison, folders = _by_bits(comparison, folders)
    reports, pool = comparison.reports, Pool()
    shots = shots_of(comparison, folders, pool)
    charts = drawn(comparison)
    script = Markup("".join(_text("scripts", f"{name}.js") for name in _SCRIPTS))
    values = {
        "comparison": comparison,
        "settings": comparison.settings,
        "reports": reports,
        "ranks": [i / max(1, len(reports) - 1) for i in range(len(reports))],
        "names": short_names([report.variant for report in reports]),
        "headline": details.headline(comparison),
        "standfirst": details.standfirst(comparison),
        "table": comparison_table(comparison),
        "timings": details.timings(comparison),
        "margins": [details.margins(report) for report in reports],
        "metrics": _metrics(comparison),
        "shots": shots,
        "charts": charts,
        "titles": TITLES,
        "versions": details.versions(comparison),
        "prompts_file": details.prompts_file(comparison),
        "commands": details.commands(comparison),
        "lossless": is_lossless(comparison.settings.width, comparison.settings.height),
        "quality": QUALITY,
        "styles": Markup("".join(_text("styles", f"{name}.css") for name in _STYLES)),
        "script": script,
        "script_hash": _hash(script),
        "data": _json(_data(comparison, shots, charts)),
        "pictures": pool.encoded(progress),
    }
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for part in _environment().get_template("page.html.jinja").generate(values):
            stream.write(part)


def _by_bits(comparison: Comparison, folders: Sequence[Path]) -> tuple[Comparison, Sequence[Path]]:
    """The same with the variants of most bits first: that is their order all over the page."""
    reports = comparison.reports
    order = sorted(range(len(reports)), key=lambda i: (-reports[i].bits_per_weight, i))
    sorted_reports = tuple(reports[i] for i in order)
    return comparison.model_copy(update={"reports": sorted_reports}), [folders[i] for i in order]


def _data(comparison: Comparison, shots: Shots, charts: dict[str, list[Chart]]) -> dict[str, Any]:
    """What the scripts know."""
    return {
        "page_version": PAGE_VERSION,
        "reference": comparison.reference,
        "chance": CHANCE,
        "variants": [
            {
                "variant": report.variant,
                "manifest_sha256": report.manifest_sha256,
                "bits": f"{report.bits_per_weight:.1f}",
            }
            for report in comparison.reports
        ],
        "shots": [
            {
                "prompt": shot.prompt,
                "seed": shot.seed,
                "takes": [take and take.as_json() for take in shot.takes],
            }
            for shot in shots.shown
        ],
        "charts": {chart.words.key: chart.tips for group in charts.values() for chart in group},
    }


def _metrics(comparison: Comparison) -> list[Any]:
    return metrics_of(
        name for report in comparison.reports if report.pictures for name in report.pictures.summary
    )


def _json(value: Any) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _text(folder: str, name: str) -> str:
    return (_HERE / folder / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": figures.size,
        "percent": figures.percent,
        "seconds": figures.seconds,
        "number": figures.number,
    }
    environment.globals["plural"] = details.plural
    return environment
