"""The performance layer of a validation: what is kept of it is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluxconv.converters.checkpoint import Checkpoint, Opening
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import Variant
from fluxconv.validators.drawing import SOURCE, VARIANT
from fluxconv.validators.kept import Kept
from fluxconv.validators.performance import measure
from fluxconv.validators.report import Settings
from fluxconv.validators.results import Machine, Performance
from fluxconv.validators.source_drawings import SourceDrawings


@dataclass(frozen=True)
class Timing:
    """Measures variants and their source with the same settings on this machine."""

    settings: Settings
    device: str
    machine: Machine
    progress: Progress

    def of_variant(
        self,
        variant: Variant,
        modes: Sequence[str],
        kept: Kept,
        measured: Mapping[str, Any],
    ) -> tuple[Performance, ...]:
        """One record a mode; what is kept of the same files on the same machine is taken."""
        return self._all(Opening(str(variant.root)), VARIANT, modes, kept, measured)

    def of_source(
        self, reference: Checkpoint, modes: Sequence[str], source: SourceDrawings
    ) -> tuple[Performance, ...]:
        """The same of the source, kept with its drawings."""
        kept, measured = Kept(source.folder), {"source": source.key}
        return self._all(reference.opening, SOURCE, modes, kept, measured)

    def _all(
        self,
        opening: Opening,
        role: str,
        modes: Sequence[str],
        kept: Kept,
        measured: Mapping[str, Any],
    ) -> tuple[Performance, ...]:
        def measured_now(mode: str) -> Callable[[], Performance]:
            return lambda: measure(
                opening, role, self.device, self.settings, self.progress, mode=mode
            )

        how = {
            "settings": self.settings.model_dump(mode="json"),
            "device": self.device,
            "machine": self.machine.model_dump(mode="json"),
        }
        return tuple(
            kept.result(f"performance-{mode}", {**measured, **how}, Performance, measured_now(mode))
            for mode in modes
        )
