"""What `fluxconv recommend` chooses from: variants at hand, or what backends make of FLUX.1-dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.backends import Backend, all_backends
from fluxconv.converters.checkpoint import read_json
from fluxconv.converters.errors import NotAVariant
from fluxconv.converters.load import require_pipeline
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.variant import Variant, hash_file, open_variant
from fluxconv.validators.memory import Part, pipeline_parts
from fluxconv.validators.report import Report, Settings, read_report
from fluxconv.validators.settings import load_settings

Device = Literal["cuda", "cpu", "mps"]
SOURCE = "black-forest-labs/FLUX.1-dev"

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Candidate:
    """Something that can be recommended.

    `size` is its bytes on disk, `parts` what it takes of memory. `report` is the one that belongs
    to it as it is now; `tiny_error` is what the backend does to the tiny Flux, for want of one.
    """

    name: str
    backend: Backend
    size: int
    parts: tuple[Part, ...]
    report: Report | None = None
    tiny_error: float | None = None
    variant: Variant | None = None

    @property
    def bits(self) -> float:
        """Bits that a weight takes, those that are kept counted, too, where that is known."""
        return self.variant.manifest.bits_per_weight if self.variant else self.backend.bits

    def cannot_run(self, device: Device) -> str | None:
        """Why it does not run on `device`, or may not be recommended; None if it may."""
        if self.report is not None and not self.report.verdict.passed:
            failed = next(check.text for check in self.report.verdict.checks if not check.passed)
            return f"it did not pass validation: {failed}"
        if device == "mps":
            rule = next(r for r in rules()["mps"] if fnmatch(self.backend.name, r["backends"]))
            return None if rule["runs"] else str(rule["why"])
        if self.variant is None:
            where = " and ".join(self.backend.runs_on)
            library = self.backend.requirement.package
            return None if device in self.backend.runs_on else f"{library} runs it on {where} only"
        for name in self.variant.manifest.components:
            config = read_json(self.variant.root / name / "config.json")
            why = self.backend.cannot_run(ARCHITECTURES[name], config, device)
            if why is not None:
                return why
        return None


def variants_at(places: Sequence[str]) -> list[Variant]:
    """The variants in these folders, each a variant or a folder of variants.

    Raises `NotAVariant` for a folder that is neither, or for a broken manifest.
    """
    found: dict[Path, Variant] = {}
    for place in map(Path, places):
        if place.is_dir() and not (place / MANIFEST_NAME).is_file():
            inner = [path.parent for path in sorted(place.glob(f"[!.]*/{MANIFEST_NAME}"))]
            if not inner:
                raise NotAVariant(
                    f"{place}: holds no variant; make some with `fluxconv quantize`, or give no "
                    "folder for advice on FLUX.1-dev"
                )
        else:
            inner = [place]
        found |= {variant.root: variant for variant in map(open_variant, inner)}
    return list(found.values())


def from_variant(variant: Variant, device: Device) -> Candidate:
    """A variant at hand; raises `NotACheckpoint` for a lone component, `BadInput` for a garbled
    report. A report of another state of the variant is not used."""
    require_pipeline(variant)
    report = read_report(variant)
    if report is not None and (
        report.manifest_sha256 != hash_file(variant.root / MANIFEST_NAME).sha256
    ):
        report = None
    settings = report.settings if report else load_settings(variant.root)
    parts = pipeline_parts(variant, "cpu" if device == "cpu" else "cuda", settings)
    size = sum(record.size for record in variant.manifest.files.values())
    return Candidate(variant.name, variant.backend, size, parts, report, variant=variant)


def of_flux_dev(device: Device) -> list[Candidate]:
    """What each backend makes of FLUX.1-dev, with its default settings."""
    known = _read("flux_dev.yaml")
    # What a GPU takes does not depend on whose it is.
    there = known["others"]["cpu" if device == "cpu" else "cuda"]
    others = [Part(name, **figures) for name, figures in there.items()]
    found = []
    for name, backend in all_backends().items():
        made = known["backends"][name]
        own = {component: dict(made[component]) for component in ARCHITECTURES}
        files = sum(figures.pop("files") for figures in own.values())
        parts = (*(Part(component, **figures) for component, figures in own.items()), *others)
        size = files + sum(part.weights for part in others)
        found.append(
            Candidate(f"FLUX.1-dev-{name}", backend, size, parts, None, made[tiny_error()])
        )
    return found


def tiny_error() -> str:
    """Which error of the tiny Flux is known: `step_error` if any is, else `weight_error`."""
    made = _read("flux_dev.yaml")["backends"].values()
    return "step_error" if any(each["step_error"] is not None for each in made) else "weight_error"


def settings_of_flux_dev() -> Settings:
    """How large the pictures are that the memory of `of_flux_dev` is for."""
    return Settings.model_validate({"prompts": ("",), **_read("flux_dev.yaml")["settings"]})


@cache
def rules() -> dict[str, Any]:
    """What others say of devices and speed; see the file's own words."""
    return _read("recommendation.yaml")


@cache
def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((_HERE / name).read_text("utf-8"))
    return found
