"""bitsandbytes' files beside bitsandbytes' own layers."""

from __future__ import annotations

import torch

from fluxconv.converters import Checkpoint, Variant


def test_bnb_transformer_equals_linear4bit_state(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    """Without a GPU diffusers refuses, but the layer that it would put in place does not."""
    import bitsandbytes as bnb
    from safetensors.torch import load_file

    source = load_file(
        tiny_checkpoint.components["transformer"].path / "diffusion_pytorch_model.safetensors"
    )
    ours = load_file(
        tiny_variants["bnb-nf4"].root / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    compared = 0
    for name, weight in source.items():
        if weight.dim() != 2:
            assert torch.equal(ours[name], weight)
            continue
        rows, columns = weight.shape
        layer = bnb.nn.Linear4bit(
            columns, rows, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
        )
        layer.weight = bnb.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", module=layer, compress_statistics=False
        )
        state = layer.to("cpu").state_dict()
        for key, value in state.items():
            assert torch.equal(ours[name.removesuffix("weight") + key], value), (name, key)
            compared += 1
    assert compared == 50 * 4
