"""An architecture is a table: one row a module, with its size, its role and its packed name.

"Packed" names are those of the single-file world: Black Forest Labs' own names for the
transformer, llama.cpp's for T5. Several modules may share one packed tensor, row range behind row
range, so the same table serves fusing (diffusers to GGUF) and splitting (single file to diffusers).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["linear", "bias", "norm", "embedding", "relative bias"]


@dataclass(frozen=True)
class Row:
    """One module of the table.

    `size` is "ROWSxCOLUMNS" or "N", in the architecture's dimensions: `6d`, `d`, `256`.
    `packed` is its packed module name, `part` its place among those that share the name.
    `swap_halves` marks a module whose two halves of rows stand in the opposite order when packed.
    """

    module: str
    kind: Kind
    size: str
    packed: str
    part: int = 0
    bias: bool = False
    swap_halves: bool = False
    packed_suffix: str = "weight"
    only_first: bool = False  # present in the first block alone


@dataclass(frozen=True)
class Group:
    """Rows repeated `count` times (a dimension's name, or "" for once); `{i}` is the index."""

    count: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Packed:
    """Where a tensor goes in the packed layout; `order` lists its row ranges as they follow."""

    name: str
    part: int
    swap_halves: bool


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that a checkpoint of the architecture has."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    packed: Packed

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        """The module's name: the tensor's without `.weight` or `.bias`."""
        return self.name.rsplit(".", 1)[0]


@dataclass(frozen=True)
class Architecture:
    """One component's family of models.

    `component` is its folder in a pipeline, `class_name` the class that `library` loads it with,
    `weights_name` the stem of its safetensors file, `max_shard_size` what that library's
    `save_pretrained` uses. `gguf` is its `general.architecture`. `tied` maps a tensor's name to
    further names that the library's state dict lists for the same tensor. `config_fields` are
    what diffusers saves of a model's constructor, with its defaults.
    """

    component: str
    title: str
    class_name: str
    library: Literal["diffusers", "transformers"]
    weights_name: str
    max_shard_size: str
    gguf: str
    groups: tuple[Group, ...]
    dimensions: Callable[[Mapping[str, Any]], Mapping[str, int]]
    tied: Mapping[str, tuple[str, ...]]
    config_fields: Mapping[str, Any] = field(default_factory=dict)

    def specs(self, config: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
        """Every tensor of a model with this `config.json`, in the order of its state dict.

        Raises `KeyError` naming the field if the config lacks one.
        """
        dimensions = self.dimensions(config)
        found: list[TensorSpec] = []
        for group in self.groups:
            for i in range(dimensions[group.count] if group.count else 1):
                for row in group.rows:
                    if not (row.only_first and i > 0):
                        found.extend(_tensors(row, i, dimensions))
        return tuple(found)


def packed_groups(specs: Iterable[TensorSpec]) -> dict[str, list[TensorSpec]]:
    """Specs by packed tensor name, each list in the order of its row ranges."""
    groups: dict[str, list[TensorSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.packed.name, []).append(spec)
    for members in groups.values():
        members.sort(key=lambda spec: spec.packed.part)
    return groups


def _tensors(row: Row, i: int, dimensions: Mapping[str, int]) -> Iterable[TensorSpec]:
    # A module that is a bare tensor's name (T5's `shared`) is no exception: it ends in .weight too.
    module, packed = row.module.format(i=i), row.packed.format(i=i)
    shape = tuple(_size(part, dimensions) for part in row.size.split("x"))
    if 0 in shape:  # an optional module, absent in this model
        return
    yield TensorSpec(
        f"{module}.weight",
        shape,
        row.kind,
        Packed(f"{packed}.{row.packed_suffix}", row.part, row.swap_halves),
    )
    if row.bias:
        yield TensorSpec(
            f"{module}.bias",
            shape[:1],
            "bias",
            Packed(f"{packed}.bias", row.part, row.swap_halves),
        )


def _size(text: str, dimensions: Mapping[str, int]) -> int:
    match = re.fullmatch(r"(\d*)([a-z_]*)", text)
    assert match, text
    factor, symbol = match.groups()
    return int(factor or 1) * (dimensions[symbol] if symbol else 1)
