"""From facts to Markdown: what each template is given."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fluxconv.cards import figures
from fluxconv.cards.choosing import first_choice
from fluxconv.cards.escaping import Markdown, code, one_line, prose
from fluxconv.cards.facts import Facts
from fluxconv.cards.licences import Licence
from fluxconv.cards.limits import limits
from fluxconv.cards.measurements import measured
from fluxconv.cards.naming import (
    HUB,
    is_hub_id,
    repository_name,
    shares_repository,
    type_name,
)
from fluxconv.cards.snippets import drawing_settings, program_ways, python_ways
from fluxconv.cards.tables import file_table
from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.variant import Variant
from fluxconv.validators.report import Report

_TEMPLATES = Path(__file__).parent / "templates"
#: Where a snippet has no repository yet.
PLACEHOLDER = "NAMESPACE"


@dataclass(frozen=True)
class CardContents:
    """What a card is made of.

    `own` are the variants that the repository holds, the first of which the snippet loads;
    `others` stand in the table only. `sheets` maps a variant's name to the path of its contact
    sheet, and `manifest_file` is that of the first manifest, as the README sees them. `has_gallery`
    says that the front matter has pictures for the Hub's gallery.
    """

    own: Sequence[Facts]
    others: Sequence[Facts]
    repository: str | None
    licence: Licence
    notice_file: str
    manifest_file: str
    sheets: Mapping[str, str]
    has_gallery: bool


def render_card(contents: CardContents) -> str:
    """The part of a card between the markers."""
    first = contents.own[0]
    manifest = first.variant.manifest
    is_gguf = shares_repository(first.variant)
    rows = [*contents.own, *contents.others]
    values: dict[str, Any] = {
        "name": repository_name(first.variant) if is_gguf else first.variant.name,
        "source": _source(first.variant),
        "backend": first.variant.backend,
        "settings": shlex.join(_settings(first.variant)),
        "rest": f"that of {manifest.source.base}" if manifest.source.base else "the source's own",
        "requantized": manifest.source.requantized,
        "sizes": _sizes(first),
        "files": file_table(contents.own),
        "measured": measured(rows, contents.own),
        "any_report": any(facts.report is not None for facts in rows),
        "own": [_validation(facts) for facts in contents.own],
        "sheets": _sheets(contents),
        "gallery": contents.has_gallery,
        "limitations": limits(contents.own),
        "choice": first_choice(
            contents.own, contents.repository or f"{PLACEHOLDER}/{repository_name(first.variant)}"
        ),
        "precision": _precision(contents.own),
        "commands": _commands(contents.own),
        "revision": manifest.source.revision,
        "device": manifest.device,
        "versions": sorted(manifest.versions.items()),
        "manifest": contents.manifest_file,
        "shared": len(contents.own) > 1,
        "licence": contents.licence,
        "licence_link": Markdown(contents.licence.text_file or contents.licence.link),
        "notice_file": contents.notice_file,
        **_use(contents),
    }
    template = "gguf.md.jinja" if is_gguf else "variant.md.jinja"
    return _tidy(_environment(prose).get_template(template).render(values))


def render_plain(template: str, values: Mapping[str, Any]) -> str:
    """A template of plain text, on one line."""
    return one_line(_environment(one_line).get_template(template).render(values))


def render_notice(variants: Sequence[Variant], licence: Licence) -> str:
    """The NOTICE of what these variants share, as plain text."""
    manifest = variants[0].manifest
    source = manifest.source.id
    values = {
        "attribution": licence.attribution,
        "terms": licence.terms,
        "version": manifest.versions.get("fluxconv", ""),
        "source": source,
        "address": f"{HUB}/{source}" if is_hub_id(source) else None,
        "revision": manifest.source.revision,
        "rest": f"other files are those of {manifest.source.base}"
        if manifest.source.base
        else "other files of the source are passed on unchanged",
        "changes": [
            f"{', '.join(v.manifest.components)}: {v.backend.title} ({v.backend.label})"
            for v in variants
        ],
        "licence": licence.title,
        "licence_file": licence.text_file,
        "link": licence.link,
    }
    text = _environment(one_line).get_template("NOTICE.jinja").render(values)
    return text.strip() + "\n"


def _source(variant: Variant) -> Markdown:
    source = variant.manifest.source
    if is_hub_id(source.id):
        return Markdown(f"[{prose(source.id)}]({HUB}/{source.id})")
    return Markdown(f"the Flux checkpoint {code(source.id)}")


def _sizes(facts: Facts) -> str:
    titles = list(facts.titles.values())
    verb = "takes" if len(titles) == 1 else "take"
    before, after = figures.size(facts.source_bytes), figures.size(facts.weight_bytes)
    return f"Its {' and '.join(titles)} {verb} {after} instead of {before}."


def _validation(facts: Facts) -> dict[str, Any]:
    report = facts.report
    return {
        "label": prose(type_name(facts.variant)),
        "passed": facts.passed,
        "compared": _compared(report) if report else "",
        "failures": facts.failures,
        "checks": [check.text for check in report.verdict.checks] if report else [],
        "difference": report.reference_difference if report else None,
        "thresholds": report.thresholds if report else None,
        "decoded": [(facts.titles.get(name, name), why) for name, why in facts.decoded.items()],
    }


def _compared(report: Report) -> str:
    done = [f"its {report.structure.tensors} stored tensors were compared with the plan"]
    if report.weights is not None:
        done[0] += ", with the source as well"
    if report.steps is not None:
        count = sum(len(trajectory.steps) for trajectory in report.steps.trajectories)
        done.append(f"{count} steps of the source were done again from the same inputs")
    if report.pictures is not None:
        count = len(report.pictures.pictures)
        of = f"{count} pictures were" if count != 1 else "one picture was"
        drawn = report.settings
        how = f"{drawn.width} x {drawn.height} pixels, {drawn.steps} steps, on {report.device}"
        done.append(f"{of} drawn with it and with the source ({how})")
    last = done.pop()
    before = f"{', '.join(done)}, and " if done else ""
    return f"It was opened from disk in a fresh process, {before}{last}."


def _sheets(contents: CardContents) -> list[dict[str, Markdown]]:
    return [
        {
            "label": code(type_name(facts.variant)),
            "path": Markdown(contents.sheets[facts.variant.name]),
        }
        for facts in contents.own
        if facts.report is not None and facts.variant.name in contents.sheets
    ]


def _precision(own: Sequence[Facts]) -> list[dict[str, Any]]:
    found = []
    for facts in own:
        for name, component in facts.components.items():
            title = facts.titles[name]
            found.append(
                {
                    "title": f"{title}, {type_name(facts.variant)}" if len(own) > 1 else title,
                    "quantized": component.quantized,
                    "kept": [(count, why, dtype) for count, why, dtype in facts.kept[name]],
                }
            )
    return found


def _commands(own: Sequence[Facts]) -> list[Markdown]:
    """The commands that make these variants again, one line each."""
    lines = []
    for facts in own:
        manifest = facts.variant.manifest
        words = ["fluxconv", "quantize", one_line(manifest.source.id)]
        if manifest.source.revision:
            words += ["--revision", one_line(manifest.source.revision)]
        if manifest.source.base:
            words += ["--base", one_line(manifest.source.base)]
        if manifest.source.requantized:
            words += ["--allow-requantize"]
        words += ["--backend", manifest.backend, *_settings(facts.variant)]
        if set(manifest.components) != set(ARCHITECTURES):
            words += [word for name in manifest.components for word in ("--component", name)]
        words += ["--device", manifest.device]
        words += ["--engine", "library"] if manifest.engine == "library" else []
        line = shlex.join(words).replace("<!--", "<! --").replace("-->", "-- >")
        lines.append(Markdown(line))
    return lines


def _settings(variant: Variant) -> list[str]:
    """The options of the command that made it."""
    words = []
    for key, value in variant.backend.options.changed().items():
        match key:
            case "skip" | "tensor_types":
                given = [(f"--{key.removesuffix('s').replace('_', '-')}", each) for each in value]
            case "importance":  # its path is not known, and would say nothing elsewhere
                given = [("--importance", f"FILE-WITH-SHA256-{value['sha256']}")]
            case "effort":
                given = [("--effort", value)]
            case _:
                given = [("--option", f"{key}={json.dumps(value).strip(chr(34))}")]
        words += [word for flag, each in given for word in (flag, one_line(str(each)))]
    return words


def _use(contents: CardContents) -> dict[str, Any]:
    first = contents.own[0]
    variant = first.variant
    on_gpu, on_cpu = first.cannot_run("cuda"), first.cannot_run("cpu")
    repository = contents.repository or f"{PLACEHOLDER}/{repository_name(variant)}"
    pictures = first.report.pictures if first.report else None
    settings = first.report.settings if first.report else drawing_settings(variant)
    requirement = variant.backend.requirement
    packages = ["accelerate", "diffusers", "protobuf", "sentencepiece", "torch", "transformers"]
    wanted = f'"{requirement.package}>={requirement.minimum}"'
    packages = [package for package in packages if package != requirement.package]
    can_load = not on_gpu and "model_index.json" in variant.manifest.files
    lone = () if on_gpu else ("it is a lone component and not a whole pipeline",)
    ways = python_ways(variant, repository, settings) if can_load else []
    return {
        "ways": [*ways, *program_ways(variant, repository, settings)],
        "install": Markdown(f"pip install {' '.join(packages)} {wanted}") if can_load else None,
        "placeholder": contents.repository is None,
        "redraws": can_load and pictures is not None,
        "cpu_limits": list(dict.fromkeys(on_cpu.values())) if can_load else [],
        "limits": [] if can_load else [*dict.fromkeys(on_gpu.values()), *lone],
    }


def _tidy(text: str) -> str:
    """No line ends in blanks, and no more than one empty line stands anywhere."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines)


@cache
def _environment(escape: Any) -> Environment:
    # Not Jinja's own autoescaping: that is HTML's, and Markdown needs more. Every value passes
    # through `escape`, whether or not the template's author thought of it.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=False,
        undefined=StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "markdown": Markdown}
    return environment
