"""GGUF files as other tools write them, made with gguf-py from blocks of random but sane bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import synthetic
import torch
from single_files import transformer_of

Array = np.ndarray[Any, Any]
Types = dict[str, tuple[str, tuple[int, ...]]]
PREFIX = "model.diffusion_model."
#: What a file of other tools has: K-quants, other types where they thought better of it.
MIXED = ("Q4_K", "Q6_K", "Q5_K", "Q3_K", "Q2_K", "IQ4_XS", "IQ3_S", "Q8_0", "Q4_K")
#: Where a block has fp16 numbers: scales and minima, which must not be infinite or NaN.
_HALVES = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "IQ1_S"), (0,)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,)},
}
#: Types that gguf-py decodes, and whose blocks are made here.
DECODED = (*_HALVES, "IQ1_M", "MXFP4", "NVFP4", "F32", "F16", "BF16")
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def blocks(type_name: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Bytes of a tensor of this type, whose weights are of about the size of real ones."""
    rng = np.random.default_rng(seed)
    if type_name in PLAIN:
        weights = torch.from_numpy(rng.standard_normal(shape) * 0.05).to(PLAIN[type_name])
        return weights.contiguous().view(torch.uint8).numpy()
    per_block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]]
    count = int(np.prod(shape)) // per_block
    found = rng.integers(0, 256, (count, nbytes), np.uint8)
    for at in _HALVES.get(type_name, ()):
        scales = (rng.random(count) * 0.002 + 0.0005).astype(np.float16)
        found[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    if type_name == "IQ1_M":  # its fp16 number is in the upper halves of four numbers of 16 bits
        for at, nibble in ((49, 0), (51, 0), (53, 0), (55, 2)):
            found[:, at] = found[:, at] & 15 | nibble << 4
    if type_name == "MXFP4":
        found[:, 0] = rng.integers(115, 123, count)  # powers of two below 1
    if type_name == "NVFP4":
        found[:, :4] = rng.integers(0, 64, (count, 4))  # float8, of which the greatest is NaN
    return found.reshape(*shape[:-1], -1)


def decoded(type_name: str, shape: tuple[int, ...], raw: Array) -> torch.Tensor:
    """What gguf-py makes of it, in bf16."""
    kind = gguf.GGMLQuantizationType[type_name]
    weights = gguf.quants.dequantize(raw.reshape(*shape[:-1], -1), kind)
    return torch.from_numpy(weights.copy()).reshape(shape).to(torch.bfloat16)


def write(
    file: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    architecture: str | None = "flux",
    metadata: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
    endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> dict[str, torch.Tensor]:
    """A file with `tensors`, a type and a shape each; returns them decoded. Without an
    architecture it has no metadata at all."""
    writer = gguf.GGUFWriter(file, architecture or "none", endianess=endian)
    if architecture is None:
        writer.kv_data[0].clear()
    metadata(writer)
    found = {}
    for seed, (name, (type_name, shape)) in enumerate(tensors.items()):
        raw = blocks(type_name, shape, seed)
        found[name] = decoded(type_name, shape, raw)
        kind = gguf.GGMLQuantizationType[type_name]
        writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def flux_types(root: Path, prefix: str = "", img_in: str = "F16") -> Types:
    """The tiny transformer under Black Forest Labs' names, in a mixture of types."""
    shapes = {name: tuple(weight.shape) for name, weight in transformer_of(root).items()}
    found: Types = {}
    matrices = 0
    for entry in synthetic.bfl_entries(shapes, prefix):
        kind = "F32"
        if len(entry.shape) > 1:
            kind = MIXED[matrices % len(MIXED)] if entry.shape[1] % 256 == 0 else "F16"
            matrices += 1
        if entry.name == f"{prefix}img_in.weight":
            kind = img_in
        found[entry.name] = (kind, entry.shape)
    return found
