"""The plan: for each tensor what will be written, where and why; from headers and configs alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fluxconv.converters import safetensors_header
from fluxconv.converters.architectures import Architecture, TensorSpec
from fluxconv.converters.backends import Backend, PlannedTensor, SourceSlice, choose_backends
from fluxconv.converters.checkpoint import Checkpoint, Component, choose_components
from fluxconv.converters.decisions import decide
from fluxconv.converters.layout import FileLayout, StoredTensor
from fluxconv.converters.patterns import check_patterns
from fluxconv.converters.ring import READ_AHEAD
from fluxconv.converters.write_behind import WRITE_BEHIND


@dataclass(frozen=True)
class ComponentPlan:
    """What one backend makes of one component. File names are relative to the variant."""

    component: str
    architecture: Architecture
    config: Mapping[str, Any]
    backend: Backend
    tensors: tuple[PlannedTensor, ...]
    files: tuple[FileLayout, ...]
    index: Mapping[str, Any] | None
    skipped: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Exact bytes of the weight files."""
        return sum(file.size for file in self.files)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits, scales and kept tensors included, over the number of weights."""
        stored = sum(tensor.nbytes for tensor in self.tensors)
        return 8 * stored / sum(spec.numel for spec in self.specs)

    @cached_property
    def quantization_config(self) -> Mapping[str, Any] | None:
        """What `config.json` gets under that name."""
        return self.backend.quantization_config(self.architecture, self.skipped)

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of the source."""
        return self.architecture.specs(self.config)

    @cached_property
    def by_source(self) -> Mapping[str, tuple[tuple[PlannedTensor, SourceSlice, int], ...]]:
        """For each source tensor, where its rows go: (target, slice, first row in the target)."""
        found: dict[str, list[tuple[PlannedTensor, SourceSlice, int]]] = {}
        for planned in self.tensors:
            row = 0
            for part in planned.target.slices:
                found.setdefault(part.tensor, []).append((planned, part, row))
                row += part.stop - part.start
        return {name: tuple(parts) for name, parts in found.items()}

    @property
    def reasons(self) -> dict[str, int]:
        """How many tensors were treated for which reason."""
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            counts[tensor.reason] = counts.get(tensor.reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class VariantPlan:
    """What one backend makes of a checkpoint."""

    name: str
    backend: Backend
    checkpoint: Checkpoint
    components: tuple[ComponentPlan, ...]
    carried: Mapping[str, Path]  # by name in the variant

    @property
    def weight_bytes(self) -> int:
        """Exact bytes of the quantized components' files."""
        return sum(component.nbytes for component in self.components)

    @cached_property
    def carried_bytes(self) -> int:
        """Bytes of the files taken over unchanged."""
        return sum(path.stat().st_size for path in self.carried.values())

    @property
    def nbytes(self) -> int:
        return self.weight_bytes + self.carried_bytes

    @property
    def bits_per_weight(self) -> float:
        """Over the weights of the quantized components."""
        weights = sum(spec.numel for c in self.components for spec in c.specs)
        return sum(8 * t.nbytes for c in self.components for t in c.tensors) / weights

    @property
    def peak_memory(self) -> int:
        """Bytes that streaming needs beside the libraries: what is read ahead, what waits to be
        written, and two weights being encoded, widened to fp32."""
        stored = [t.nbytes for c in self._sources for h in c.headers for t in h.tensors]
        ahead = max(*stored, min(READ_AHEAD, sum(stored)))
        largest = max(spec.numel for c in self.components for spec in c.specs)
        return ahead + min(WRITE_BEHIND, self.weight_bytes) + 2 * largest * (4 + 1)

    @property
    def tensors(self) -> list[PlannedTensor]:
        return [tensor for component in self.components for tensor in component.tensors]

    @cached_property
    def remark(self) -> str | None:
        """What the user should know of it, None for nothing."""
        return self.backend.options.remark(self.tensors, self.checkpoint.source)

    @property
    def _sources(self) -> list[Component]:
        return [self.checkpoint.components[c.component] for c in self.components]


def plan(
    checkpoint: Checkpoint, backends: Sequence[str | Backend], components: tuple[str, ...] = ()
) -> tuple[VariantPlan, ...]:
    """The plan of one variant for each backend named or given, from headers and configs alone.

    Raises `UnknownBackend`, `UsageError` for a backend twice, `BadInput` for an unknown component
    or a setting that does not fit the checkpoint.
    """
    found = choose_backends(backends)
    chosen = choose_components(checkpoint, components)
    plans = tuple(plan_variant(checkpoint, backend, chosen) for backend in found)
    for item in plans:
        check_patterns(item.checkpoint, item.backend)
        item.backend.options.check(item.backend.name, item.tensors)
    return plans


def plan_variant(
    checkpoint: Checkpoint, backend: Backend, components: tuple[Component, ...]
) -> VariantPlan:
    """Plan one variant. Reads no tensor data."""
    planned = tuple(plan_component(checkpoint, component, backend) for component in components)
    chosen = {component.name for component in components}
    carried = checkpoint.carried_files(chosen)
    return VariantPlan(f"{checkpoint.name}-{backend.label}", backend, checkpoint, planned, carried)


def plan_component(checkpoint: Checkpoint, component: Component, backend: Backend) -> ComponentPlan:
    """Plan one component of one variant."""
    architecture = component.architecture
    skipped, tensors = decide(component, backend)
    files: tuple[FileLayout, ...]
    index: Mapping[str, Any] | None = None
    if backend.container == "gguf":
        files = (_gguf_file(checkpoint, component, backend, tensors),)
    else:
        files, index = _safetensors_files(component.name, architecture, backend, tensors)
    return ComponentPlan(
        component.name, architecture, component.config, backend, tensors, files, index, skipped
    )


def settled(plan: ComponentPlan, sizes: Mapping[str, int]) -> ComponentPlan:
    """The plan with the true `sizes` of tensors that it could only bound, by stored name."""

    def true(stored: StoredTensor) -> StoredTensor:
        nbytes = sizes.get(stored.name, stored.nbytes)
        return stored if stored.settled else replace(stored, shape=(nbytes,), nbytes=nbytes)

    tensors = tuple(
        replace(tensor, stored=tuple(map(true, tensor.stored))) for tensor in plan.tensors
    )
    files, index = _safetensors_files(plan.component, plan.architecture, plan.backend, tensors)
    return replace(plan, tensors=tensors, files=files, index=index)


def gguf_file_name(name: str, component: str, type_name: str) -> str:
    """`<name>-<TYPE>.gguf` for the transformer, `<name>-text_encoder_2-<TYPE>.gguf` for T5."""
    middle = "" if component == "transformer" else f"-{component}"
    return f"{name}{middle}-{type_name}.gguf"


def _safetensors_files(
    component: str,
    architecture: Architecture,
    backend: Backend,
    tensors: tuple[PlannedTensor, ...],
) -> tuple[tuple[FileLayout, ...], Mapping[str, Any] | None]:
    """The files and the index that the library's `save_pretrained` would write."""
    from huggingface_hub import split_state_dict_into_shards_factory

    metadata = backend.header_metadata(tensors, architecture)
    stored = {item.name: item for tensor in tensors for item in tensor.stored}
    split = split_state_dict_into_shards_factory(
        stored,
        get_storage_size=lambda item: item.nbytes,
        filename_pattern=f"{architecture.weights_name}{{suffix}}.safetensors",
        max_shard_size=architecture.max_shard_size,
    )
    files = tuple(
        safetensors_header.lay_out(
            f"{component}/{name}", [stored[item] for item in items], metadata
        )
        for name, items in split.filename_to_tensors.items()
    )
    if not split.is_sharded:
        return files, None
    # diffusers repeats there what the headers say beside the format.
    said = {key: value for key, value in metadata.items() if key != "format"}
    index = {"metadata": split.metadata | said, "weight_map": split.tensor_to_filename}
    return files, json.loads(json.dumps(index))


def _gguf_file(
    checkpoint: Checkpoint,
    component: Component,
    backend: Backend,
    tensors: tuple[PlannedTensor, ...],
) -> FileLayout:
    from fluxconv.converters.backends.gguf import Gguf
    from fluxconv.converters.gguf.layout import lay_out
    from fluxconv.converters.gguf.metadata import Metadata

    assert isinstance(backend, Gguf)
    tokenizer = checkpoint.root / "tokenizer_2"
    metadata = Metadata(
        component.architecture,
        component.config,
        sum(spec.numel for spec in component.architecture.specs(component.config)),
        checkpoint.name,
        checkpoint.source,
        checkpoint.revision,
        backend.file_type,
        checkpoint.front_matter,
        backend.options.metadata({tensor.stored[0].dtype for tensor in tensors}),
        tokenizer if tokenizer.is_dir() else None,
    )
    name = gguf_file_name(checkpoint.name, component.name, backend.file_label)
    return lay_out(name, tensors, metadata)
