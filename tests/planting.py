"""Wrong weights in a variant: encoded as right ones are, by its own backend, in their place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from validating import entry_of, overwrite

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.codec import encode_target

DOUBLE, SINGLE = "transformer_blocks", "single_transformer_blocks"

#: What a converter with a bug does to a weight.
CHANGES = {
    "the whole tensor times 1.3": f"{DOUBLE}.0.ff.net.2.weight",
    "the whole tensor times 1.05": f"{DOUBLE}.1.ff.net.2.weight",
    "a square tensor transposed": f"{DOUBLE}.0.attn.to_add_out.weight",
    "a block of 64 x 64 transposed": f"{DOUBLE}.1.attn.to_add_out.weight",
    "a block of 256 x 256 transposed": f"{DOUBLE}.0.ff_context.net.0.proj.weight",
    "rows rolled by one": f"{DOUBLE}.0.ff.net.0.proj.weight",
    "the sign of one row flipped": f"{DOUBLE}.1.ff.net.0.proj.weight",
    "the scale of one row lost": f"{SINGLE}.0.proj_out.weight",
    "one row times 1.3": f"{SINGLE}.1.proj_out.weight",
    "scale and shift swapped": "norm_out.linear.weight",
    "a norm times 1.01": f"{DOUBLE}.0.attn.norm_q.weight",
}
#: What it does to several at once: which get the place of which.
EXCHANGES = {
    "q and k swapped": [f"{DOUBLE}.0.attn.to_{part}.weight" for part in "qk"],
    "q, k, v in another order": [f"{SINGLE}.0.attn.to_{part}.weight" for part in "qkv"],
    "two layers exchanged": [f"{DOUBLE}.{block}.attn.to_out.0.weight" for block in (0, 1)],
}
ZEROED = f"{DOUBLE}.0.ff_context.net.2.weight"
#: Where four bytes of ones are no number, in each family: the stored tensor, the weight, the place.
NANS = {
    "torchao-int8": ("x_embedder._weight_scale", "x_embedder.weight", 0),
    "bnb-nf4": (f"{SINGLE}.1.proj_out.weight.absmax", f"{SINGLE}.1.proj_out.weight", 8),
    "quanto-int2": (f"{DOUBLE}.0.ff.net.2.weight._scale", f"{DOUBLE}.0.ff.net.2.weight", 4),
    "fp8-layerwise": ("x_embedder.weight", "x_embedder.weight", 100),
    "gguf-q4_k_m": ("single_blocks.1.linear2.weight", f"{SINGLE}.1.proj_out.weight", 0),
    "gguf-q2_k": ("single_blocks.1.linear2.weight", f"{SINGLE}.1.proj_out.weight", 80),
}


def changed(fault: str, weight: torch.Tensor) -> torch.Tensor:
    """`weight` with a fault of `CHANGES`."""
    wrong = weight.clone()
    match fault:
        case "the whole tensor times 1.3":
            wrong = weight * 1.3
        case "the whole tensor times 1.05":
            wrong = weight * 1.05
        case "a square tensor transposed":
            wrong = weight.T.contiguous()
        case "a block of 64 x 64 transposed":
            wrong[64:128, :64] = weight[64:128, :64].T
        case "a block of 256 x 256 transposed":
            wrong[256:512, :256] = weight[256:512, :256].T
        case "rows rolled by one":
            wrong = weight.roll(1, dims=0)
        case "the sign of one row flipped":
            wrong[3] *= -1
        case "the scale of one row lost":
            wrong[17] = 0
        case "one row times 1.3":
            wrong[5] *= 1.3
        case "scale and shift swapped":
            wrong = torch.cat([*reversed(weight.chunk(2))])
        case "a norm times 1.01":
            wrong = weight * 1.01
    return wrong


def wrong_weights(source: Checkpoint) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """Every fault above, each in tensors of its own: the wrong weights by name, and the names of
    those that each fault is in."""
    read = source.components["transformer"].read
    wrong = {name: changed(fault, read(name)) for fault, name in CHANGES.items()}
    for names in EXCHANGES.values():
        for name, other in zip(names, names[1:] + names[:1], strict=True):
            wrong[name] = read(other)
    return wrong, {**{fault: [name] for fault, name in CHANGES.items()}, **EXCHANGES}


def plant(variant: Variant, source: Checkpoint, wrong: Mapping[str, torch.Tensor]) -> None:
    """Encode `wrong` weights of the transformer into the variant's files, in place."""
    read = source.components["transformer"].read
    plan = variant.component_plans()["transformer"]
    for planned in plan.tensors:
        slices = planned.target.slices
        if not any(part.tensor in wrong for part in slices):
            continue
        rows = [
            (wrong[part.tensor] if part.tensor in wrong else read(part.tensor))[
                part.start : part.stop
            ]
            for part in slices
        ]
        for name, data in encode_target(plan.backend, planned, torch.cat(rows)).items():
            overwrite(entry_of(variant, name), data)


def zero_bytes(variant: Variant, weight: str, count: int = 256) -> None:
    """Zeros in place of some bytes of a weight's codes."""
    planned = variant.component_plans()["transformer"].by_source[weight][0][0]
    entry = entry_of(variant, planned.stored[0].name)
    with entry.file.open("r+b") as stream:
        stream.seek(entry.offset + 1024)
        stream.write(bytes(count))
