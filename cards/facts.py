"""What a card may say about a variant: only what its manifest and its report hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from fluxconv.cards.blind_tests import Sitting, read_blind_tests
from fluxconv.cards.naming import HUB, repository_name
from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.checkpoint import read_json
from fluxconv.converters.errors import BadInput
from fluxconv.converters.manifest import MANIFEST_NAME, ComponentRecord
from fluxconv.converters.variant import Variant, hash_file
from fluxconv.validators.report import Report, read_report


@dataclass(frozen=True)
class Facts:
    """One variant as the templates see it.

    `report` is the one that belongs to the manifest as it is now, whatever its verdict; None if
    there is none, or if it is not to be relied on. `blind_tests` were taken on its pictures.
    """

    variant: Variant
    report: Report | None
    blind_tests: tuple[Sitting, ...]
    namespace: str | None
    endpoint: str

    @property
    def passed(self) -> bool:
        """Whether the card may call it validated."""
        return self.report is not None and self.report.verdict.passed

    @property
    def failures(self) -> tuple[str, ...]:
        """The checks that it did not pass."""
        checks = self.report.verdict.checks if self.report else ()
        return tuple(check.text for check in checks if not check.passed)

    @property
    def verdict(self) -> str:
        if self.report is None:
            return "not validated"
        return "passed" if self.passed else "failed"

    @property
    def repository(self) -> str | None:
        """Its repository on the Hub, None where it is not published."""
        return f"{self.namespace}/{repository_name(self.variant)}" if self.namespace else None

    @property
    def address(self) -> str | None:
        """Where people find that repository."""
        return f"{self.endpoint}/{self.repository}" if self.repository else None

    @property
    def components(self) -> dict[str, ComponentRecord]:
        return self.variant.manifest.components

    @property
    def weight_bytes(self) -> int:
        """Bytes of the quantized components' files."""
        return sum(component.weight_bytes for component in self.components.values())

    @property
    def source_bytes(self) -> int:
        """Bytes of the same components in the source."""
        return sum(component.source_bytes for component in self.components.values())

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole pipeline."""
        return sum(record.size for record in self.variant.manifest.files.values())

    @property
    def titles(self) -> dict[str, str]:
        """What people call each component."""
        return {name: ARCHITECTURES[name].title for name in self.components}

    def weight_error(self, component: str) -> float | None:
        """The relative RMS error of a component's quantized weights."""
        weights = (self.report.weights if self.report else None) or {}
        return weights[component].relative_rms if component in weights else None

    @property
    def decoded(self) -> dict[str, str]:
        """The components that were decoded to be drawn, and why."""
        execution = (self.report.execution if self.report else None) or {}
        return {name: e.why for name, e in execution.items() if e.mode == "decoded"}

    @cached_property
    def kept(self) -> dict[str, list[tuple[int, str, str]]]:
        """For each component, how many tensors stay in which type, and why; the most first."""
        found = {}
        for name, component in self.components.items():
            counts = Counter((k.reason.removeprefix("kept: "), k.dtype) for k in component.kept)
            found[name] = [(count, *what) for what, count in counts.most_common()]
        return found

    def cannot_run(self, device: str) -> dict[str, str]:
        """The components that their library cannot run on `device`, and why."""
        found = {}
        for name in self.components:
            config = read_json(self.variant.root / name / "config.json")
            why = self.variant.backend.cannot_run(ARCHITECTURES[name], config, device)
            if why is not None:
                found[name] = why
        return found


def facts_of(
    variant: Variant,
    *,
    namespace: str | None = None,
    endpoint: str = HUB,
    validated: bool = True,
) -> Facts:
    """The facts of a variant; with `validated=False` its report, if any, is not relied on."""
    report = _valid_report(variant) if validated else None
    return Facts(variant, report, _blind_tests(variant) if report else (), namespace, endpoint)


def _valid_report(variant: Variant) -> Report | None:
    try:
        report = read_report(variant)
    except BadInput:
        return None
    if report is None:
        return None
    belongs = report.manifest_sha256 == hash_file(variant.root / MANIFEST_NAME).sha256
    return report if belongs else None


def _blind_tests(variant: Variant) -> tuple[Sitting, ...]:
    try:
        return read_blind_tests(variant)
    except BadInput:
        return ()
