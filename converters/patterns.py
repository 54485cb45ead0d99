"""Whether the user's patterns mean anything: one that matches nothing is a slip of the pen."""

from __future__ import annotations

import re
from dataclasses import replace

from fluxconv.converters.backends import Backend
from fluxconv.converters.errors import UsageError
from fluxconv.converters.opened import Checkpoint


def check_patterns(checkpoint: Checkpoint, backend: Backend) -> None:
    """Raise `UsageError` for a pattern of the backend's options that would change nothing, whatever
    component of the checkpoint it is for."""
    specs = [
        spec
        for component in checkpoint.components.values()
        for spec in component.architecture.specs(component.config)
    ]
    for pattern in backend.options.skip:
        alone = replace(backend, options=backend.options.model_copy(update={"skip": (pattern,)}))
        if not any(spec.kind == "linear" and alone.asks_to_skip(spec) for spec in specs):
            raise _matches_nothing(checkpoint, backend, pattern)
    names = {name for spec in specs for name in (spec.module, spec.packed.name)}
    for pattern in backend.options.patterns():
        if not any(re.search(pattern, name) for name in names):
            raise _matches_nothing(checkpoint, backend, pattern)


def _matches_nothing(checkpoint: Checkpoint, backend: Backend, pattern: str) -> UsageError:
    return UsageError(
        f"{backend.name}: '{pattern}' matches no module of {checkpoint.name} that it could change; "
        "`fluxconv plan --tensors` lists them"
    )
