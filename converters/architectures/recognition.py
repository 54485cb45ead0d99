"""A Flux transformer told from the names and shapes of its tensors, without a config."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fluxconv.converters.architectures.base import Row, TensorSpec, packed_groups
from fluxconv.converters.architectures.flux import FLUX

Shape = tuple[int, ...]

#: What community checkpoints put before the transformer's names, other parts of a model beside it.
PREFIX = "model.diffusion_model."
#: FLUX.1's axes of rotary embedding, by head width: no tensor shows them.
_AXES = {128: (16, 56, 56)}
#: Where the numbers of a config show: a module of the table, and an axis of its weight.
_SHOWN = {
    "width": ("x_embedder", 0),
    "in_channels": ("x_embedder", 1),
    "out_channels": ("proj_out", 0),
    "attention_head_dim": ("transformer_blocks.{i}.attn.norm_q", 0),
    "joint_attention_dim": ("context_embedder", 1),
    "pooled_projection_dim": ("time_text_embed.text_embedder.linear_1", 1),
}
_GUIDANCE = "time_text_embed.guidance_embedder.linear_1"
_ROWS = {row.module: row for group in FLUX.groups for row in group.rows}
#: The config's number of blocks, and what the architecture calls it.
_COUNTS = {"num_layers": "double", "num_single_layers": "single"}


@dataclass(frozen=True)
class Part:
    """Rows of a stored tensor that are one weight; its halves are `swapped` in the store."""

    weight: str
    shape: Shape
    swapped: bool = False


@dataclass(frozen=True)
class Layout:
    """One way to name and fuse an architecture's tensors."""

    title: str
    stored_name: Callable[[Row], str]
    parts: Callable[[Iterable[TensorSpec]], dict[str, tuple[Part, ...]]]


def _plain(specs: Iterable[TensorSpec]) -> dict[str, tuple[Part, ...]]:
    return {spec.name: (Part(spec.name, spec.shape),) for spec in specs}


def _packed(specs: Iterable[TensorSpec]) -> dict[str, tuple[Part, ...]]:
    return {
        name: tuple(Part(spec.name, spec.shape, spec.packed.swap_halves) for spec in members)
        for name, members in packed_groups(specs).items()
    }


#: The library's own names, one stored tensor a weight.
PLAIN = Layout("diffusers' names", lambda row: f"{row.module}.weight", _plain)
#: The names of single files.
PACKED = Layout(
    "Black Forest Labs' names", lambda row: f"{row.packed}.{row.packed_suffix}", _packed
)
LAYOUTS = (PACKED, PLAIN)


@dataclass(frozen=True)
class Recognised:
    """A Flux transformer in a file: the `prefix` of its names, their `layout`, and its `config` as
    far as shapes tell: `axes_dims_rope` is there for FLUX.1's head width alone."""

    prefix: str
    layout: Layout
    config: Mapping[str, Any]

    @property
    def parts(self) -> dict[str, tuple[Part, ...]]:
        """By stored name, the weights of every tensor that the file must have."""
        found = self.layout.parts(FLUX.specs(self.config))
        return {self.prefix + name: parts for name, parts in found.items()}


def recognise(shapes: Mapping[str, Shape]) -> Recognised | None:
    """The transformer among tensors of these names and shapes; None if there is none.

    Whether every tensor is there and has the right shape is not looked at.
    """
    prefix = PREFIX if any(name.startswith(PREFIX) for name in shapes) else ""
    inner = {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }
    for layout in LAYOUTS:
        config = _config(inner, layout)
        if config is not None:
            return Recognised(prefix, layout, config)
    return None


def missing_landmarks(layout: Layout, names: Collection[str]) -> list[str]:
    """The tensors that `recognise` looks at in this layout and that are not among `names`."""
    inner = {name.removeprefix(PREFIX) for name in names}
    return [name for name, _ in _landmarks(layout).values() if name not in inner]


def _landmarks(layout: Layout) -> dict[str, tuple[str, int]]:
    """Where the numbers of a config show in this layout: stored name and axis."""
    return {
        key: (layout.stored_name(_ROWS[module]).format(i=0), axis)
        for key, (module, axis) in _SHOWN.items()
    }


def _config(shapes: Mapping[str, Shape], layout: Layout) -> dict[str, Any] | None:
    seen = {}
    for key, (name, axis) in _landmarks(layout).items():
        shape = shapes.get(name, ())
        if len(shape) <= axis or not shape[axis]:
            return None
        seen[key] = shape[axis]
    width, head = seen.pop("width"), seen["attention_head_dim"]
    config: dict[str, Any] = {
        "_class_name": FLUX.class_name,
        **seen,
        "num_attention_heads": width // head,
        "guidance_embeds": layout.stored_name(_ROWS[_GUIDANCE]) in shapes,
        "patch_size": 1,
        **_block_counts(shapes, layout),
    }
    if config["out_channels"] == config["in_channels"]:
        config["out_channels"] = None  # as diffusers writes it
    if head in _AXES:
        config["axes_dims_rope"] = list(_AXES[head])
    return config


def _block_counts(shapes: Mapping[str, Shape], layout: Layout) -> dict[str, int]:
    counts = {}
    for key, dimension in _COUNTS.items():
        (group,) = (group for group in FLUX.groups if group.count == dimension)
        before = re.escape(layout.stored_name(group.rows[0]).partition("{i}")[0])
        found = [re.match(before + r"(\d+)\.", name) for name in shapes]
        # As many as there are, not the highest number: a name costs nothing, a block thousands.
        counts[key] = len({match[1] for match in found if match})
    return counts
