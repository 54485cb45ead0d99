"""Whether the user's patterns mean anything: one that changes nothing is a slip of the pen."""

from __future__ import annotations

from dataclasses import replace

from fluxconv.converters.backends import Backend
from fluxconv.converters.decisions import decide
from fluxconv.converters.errors import UsageError
from fluxconv.converters.layout import StoredTensor
from fluxconv.converters.opened import Checkpoint


def check_patterns(checkpoint: Checkpoint, backend: Backend) -> None:
    """Raise `UsageError` for a pattern of the backend's options that changes nothing, whatever
    component of the checkpoint it is for."""
    specs = [
        spec
        for component in checkpoint.components.values()
        for spec in component.architecture.specs(component.config)
    ]
    for pattern in backend.options.skip:
        alone = replace(backend, options=backend.options.model_copy(update={"skip": (pattern,)}))
        if not any(spec.kind == "linear" and alone.asks_to_skip(spec) for spec in specs):
            raise UsageError(
                f"{backend.name}: '{pattern}' matches no module of {checkpoint.name} that it could "
                "change; `fluxconv plan --tensors` lists them"
            )
    stored = _stored(checkpoint, backend)
    for rule, without in backend.options.without_each_rule():
        if _stored(checkpoint, replace(backend, options=without)) == stored:
            raise UsageError(
                f"{backend.name}: '{rule}' changes no tensor of {checkpoint.name}; leave it out, "
                "or see how they are stored with `fluxconv plan --tensors`"
            )


def _stored(checkpoint: Checkpoint, backend: Backend) -> list[tuple[StoredTensor, ...]]:
    components = checkpoint.components.values()
    return [tensor.stored for each in components for tensor in decide(each, backend)[1]]
