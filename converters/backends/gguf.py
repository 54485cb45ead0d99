"""GGUF: llama.cpp's container, with Black Forest Labs' names for the transformer.

What is quantized follows the field's converters (see `docs/architecture.md`): 2-D weights of linear
layers and T5's token embedding, except the transformer's input and output projections. So do the
tensors that get a better type than the rest (`gguf/upgrades.py`). The user's rules for single
tensors come before both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from fluxconv.converters.architectures import Architecture
from fluxconv.converters.backends.base import Backend, PlannedTensor, Requirement, Target
from fluxconv.converters.dtypes import FLOATS
from fluxconv.converters.gguf import decode, encode
from fluxconv.converters.gguf.encoders.kernels import kernel
from fluxconv.converters.gguf.rules import Asked, BlockOptions, GgufOptions
from fluxconv.converters.gguf.snippet import snippet
from fluxconv.converters.gguf.types import TYPES, fitting
from fluxconv.converters.gguf.upgrades import UPGRADES, upgraded
from fluxconv.converters.layout import StoredTensor

if TYPE_CHECKING:
    import torch

#: diffusers' single-file loader splits fused tensors by this width, whatever the config says.
DIFFUSERS_GGUF_WIDTH = 3072

_PROJECTIONS = (
    "txt_in.",
    "img_in.",
    "time_in.",
    "vector_in.",
    "guidance_in.",
    "final_layer.",
)


@dataclass(frozen=True)
class Gguf(Backend):
    """Most weights as one GGML type.

    `file_type` is the field's name for such a file, of gguf-py's `LlamaFileType`.
    """

    container: ClassVar[Literal["safetensors", "gguf"]] = "gguf"
    encodes: ClassVar[str | None] = None

    options: GgufOptions = GgufOptions()  # noqa: RUF009 - frozen
    type_name: str = "Q8_0"
    file_type: str = "MOSTLY_Q8_0"

    @property
    def rows_alone(self) -> bool:
        return True

    @property
    def mix(self) -> str:
        """The field's short name for such a file: `Q8_0`, `Q4_K_M`."""
        return self.file_type.removeprefix("MOSTLY_")

    @property
    def file_label(self) -> str:
        """What stands in the file's name: `mix`, and the settings that are not the defaults."""
        return self.mix + self.options.suffix

    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        asked = self.options.asked(target)
        role = _full_precision(target)
        if role and (asked is None or asked.type_name not in ("F16", "F32")):
            never = f", never {asked.type_name}" if asked else ""
            return _stored(target, "F32", f"kept: {role}{never}")
        if asked:
            return _fitted(target, asked.type_name, _as_asked(asked))
        if target.name.startswith(_PROJECTIONS):
            # A file of F16 is made for devices without BF16.
            high = "F16" if self.type_name == "F16" else "BF16"
            return _stored(target, high, "kept: input or output projection")
        better = upgraded(self.mix, target.name)
        if better:
            return _fitted(target, better, f"quantized: upgraded in {self.mix} files")
        plain = self.type_name in FLOATS
        return _fitted(
            target, self.type_name, f"converted to {self.type_name}" if plain else "quantized"
        )

    def plan_skipped(self, target: Target, architecture: Architecture) -> PlannedTensor:
        planned = self.plan_tensor(target, architecture)
        if self.options.asked(target) or not planned.quantized:
            return planned
        return _stored(target, "BF16", "kept: skipped as asked")

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        (stored,) = planned.stored
        return {stored.name: encode(weight, stored.dtype)}

    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        (place,) = planned.stored
        return decode(stored[place.name], place.dtype, place.shape[-1])

    def snippet(self, repository: str, files: Mapping[str, str]) -> str:
        return snippet(repository, files)

    def load(
        self, root: Path, component: str, files: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        import torch

        from fluxconv.converters.load import model_class

        loader = model_class(component)
        (file,) = files
        model: torch.nn.Module
        if component == "transformer":
            from diffusers import GGUFQuantizationConfig

            model = loader.from_single_file(
                str(root / file),
                config=str(root),
                subfolder="transformer",
                quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
                dtype=torch.bfloat16,
                local_files_only=True,
            )
        else:
            config = loader.config_class.from_pretrained(root, subfolder=component)
            model = loader.from_pretrained(
                root, gguf_file=file, config=config, dtype=torch.bfloat16, local_files_only=True
            )
        return model

    def loader(self, architecture: Architecture) -> str:
        name = super().loader(architecture)
        if architecture.library == "diffusers":
            return name.replace("from_pretrained", "from_single_file")
        return name

    def cannot_run(
        self, architecture: Architecture, config: Mapping[str, Any], device: str
    ) -> str | None:
        if architecture.library == "diffusers":
            width = architecture.dimensions(config)["d"]
            if width != DIFFUSERS_GGUF_WIDTH:
                return (
                    f"diffusers opens GGUF transformers of width {DIFFUSERS_GGUF_WIDTH} only, and "
                    f"this one's is {width}"
                )
        return None


@dataclass(frozen=True)
class GgufBlocks(Gguf):
    """Most weights in blocks, whose encoders have settings."""

    options: BlockOptions = BlockOptions()  # noqa: RUF009 - frozen

    def configured(self, given: Mapping[str, Any]) -> Self:
        """As every backend; a setting that changes no byte of its files is left at the default, so
        it stands neither in their names nor in their metadata."""
        found = super().configured(given)
        better = (type_name for _, type_name in UPGRADES.get(self.mix, ()))
        types = (self.type_name, *better, *found.options.types_asked())
        return replace(found, options=found.options.heeded(types))

    def preparations(
        self, tensors: Sequence[PlannedTensor], device: str
    ) -> Mapping[str, Callable[[], object]]:
        options = self.options
        make = partial(
            kernel,
            effort=options.effort,
            weighted=options.importance is not None,
            unbiased=options.unbiased,
            device=device,
        )
        names = {tensor.stored[0].dtype for tensor in tensors} - FLOATS
        return {f"{name}{options.suffix}": partial(make, name) for name in sorted(names)}

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        (stored,) = planned.stored
        options = self.options
        known = options.importance
        importance = None if known is None else known.of(planned.target)
        encoded = encode(
            weight, stored.dtype, importance, options.effort, unbiased=options.unbiased
        )
        return {stored.name: encoded}


def _full_precision(target: Target) -> str | None:
    """What `target` is, if it has to be F32, or F16 where a rule says so; else None."""
    if len(target.shape) == 1:
        return "1-D"  # biases and norms: diffusers takes them in no other type
    if target.kind == "relative bias":
        return "relative position bias"  # llama.cpp never quantizes it
    if target.name == "img_in.weight":
        # diffusers reads the bytes of its rows as channels: in BF16 it would load a depth model.
        return "input projection"
    return None


def _as_asked(asked: Asked) -> str:
    """The reason for it. A rule may well hit what was not meant where it hits by a module's name,
    so that is told; one for all blocks."""
    how = "kept" if asked.type_name in FLOATS else "quantized"
    by = "" if asked.module is None else re.sub(r"\.\d+(?=\.|$)", ".*", f" for {asked.module}")
    return f"{how}: as asked{by}"


def _fitted(target: Target, type_name: str, reason: str) -> PlannedTensor:
    """`target` as `type_name`, or as what that falls back to for rows of this length."""
    columns = target.shape[-1]
    found = fitting(type_name, columns)
    if found.name != type_name:
        block = TYPES[type_name].weights
        reason = f"fallback: rows of {columns} are no multiple of {block}"
    return _stored(target, found.name, reason)


def _stored(target: Target, type_name: str, reason: str) -> PlannedTensor:
    *rows, columns = target.shape
    nbytes = math.prod(rows) * TYPES[type_name].row_bytes(columns)
    stored = StoredTensor(target.name, type_name, target.shape, nbytes)
    return PlannedTensor(target, (stored,), reason)


def _backend(mix: str, title: str, type_name: str = "") -> Gguf:
    """The backend of files called `mix`, whose main type is `type_name` if it is another."""
    type_name = type_name or mix
    kind = GgufBlocks if TYPES[type_name].weights > 1 else Gguf
    return kind(
        name=f"gguf-{mix.lower()}",
        title=f"GGUF {mix}, {title}",
        requirement=Requirement("gguf", "0.19"),
        bits=TYPES[type_name].bits,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu", "cuda"),
        # Each of them reads every type that is written here.
        loads_in=("diffusers", "transformers", "ComfyUI-GGUF", "stable-diffusion.cpp"),
        type_name=type_name,
        file_type=f"MOSTLY_{mix}",
    )


BACKENDS = (
    _backend("F16", "half precision"),
    _backend("BF16", "bfloat16"),
    _backend("Q8_0", "blocks of 32"),
    _backend("Q6_K", "blocks of 256"),
    _backend("Q5_K_M", "blocks of 256 with minima, more bits for attention", "Q5_K"),
    _backend("Q5_K_S", "blocks of 256 with minima", "Q5_K"),
    _backend("Q5_1", "blocks of 32 with a minimum"),
    _backend("Q5_0", "blocks of 32"),
    _backend("Q4_K_M", "blocks of 256 with minima, more bits for attention", "Q4_K"),
    _backend("Q4_K_S", "blocks of 256 with minima", "Q4_K"),
    _backend("IQ4_NL", "blocks of 32, uneven steps"),
    _backend("IQ4_XS", "blocks of 256, uneven steps"),
    _backend("Q4_1", "blocks of 32 with a minimum"),
    _backend("Q4_0", "blocks of 32"),
    _backend("Q3_K_M", "blocks of 256, more bits for attention", "Q3_K"),
    _backend("Q3_K_S", "blocks of 256", "Q3_K"),
    _backend("Q2_K", "blocks of 256 with minima"),
)
