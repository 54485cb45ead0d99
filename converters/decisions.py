"""What becomes of every tensor of a component: the container's targets, a decision on each."""

from __future__ import annotations

from dataclasses import replace

from fluxconv.converters.architectures import Architecture, TensorSpec
from fluxconv.converters.architectures.base import packed_groups
from fluxconv.converters.backends import Backend, PlannedTensor, SourceSlice, Target
from fluxconv.converters.backends.base import SKIPPED
from fluxconv.converters.component import Component


def decide(
    component: Component, backend: Backend
) -> tuple[tuple[str, ...], tuple[PlannedTensor, ...]]:
    """The modules of `component` that are skipped as asked, and the decision on every target, from
    its config alone."""
    architecture = component.architecture
    specs = architecture.specs(component.config)
    targets = _packed_targets(specs) if backend.container == "gguf" else _plain_targets(specs)
    skipped = backend.skipped(specs, architecture)
    asked = frozenset(spec.module for spec in specs if backend.asks_to_skip(spec))
    names = frozenset(skipped)
    return skipped, tuple(
        _decide(target, backend, architecture, names, asked) for target in targets
    )


def _decide(
    target: Target,
    backend: Backend,
    architecture: Architecture,
    skipped: frozenset[str],
    asked: frozenset[str],
) -> PlannedTensor:
    modules = {part.tensor.removesuffix(".weight") for part in target.slices}
    if target.kind != "linear" or not modules & skipped:
        return backend.plan_tensor(target, architecture)
    planned = backend.plan_skipped(target, architecture)
    if planned.reason == f"kept: {SKIPPED}" and not modules & asked:
        return replace(planned, reason="kept: the library cannot tell it from what was skipped")
    return planned


def _plain_targets(specs: tuple[TensorSpec, ...]) -> list[Target]:
    return [
        Target(spec.name, spec.shape, spec.kind, (SourceSlice(spec.name, 0, spec.shape[0]),))
        for spec in specs
    ]


def _packed_targets(specs: tuple[TensorSpec, ...]) -> list[Target]:
    targets = []
    for name, members in packed_groups(specs).items():
        slices: list[SourceSlice] = []
        for spec in members:
            rows = spec.shape[0]
            halves = (
                ((rows // 2, rows), (0, rows // 2)) if spec.packed.swap_halves else ((0, rows),)
            )
            slices += [SourceSlice(spec.name, start, stop) for start, stop in halves]
        rows = sum(spec.shape[0] for spec in members)
        targets.append(Target(name, (rows, *members[0].shape[1:]), members[0].kind, tuple(slices)))
    return targets
