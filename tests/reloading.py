"""Loads variants in a process that has never quantized anything, and runs them.

    python tests/reloading.py REQUEST.json

The request lists variants: the code of their card that leaves `pipe`, the components to run, and a
file for the outputs. Where the whole pipeline cannot be opened here, there is no code, and the
components are loaded one by one.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch


@torch.no_grad()
def run(component: str, model: Any, device: str) -> torch.Tensor:
    """The output of a component for inputs that never change: float, on the CPU."""
    noise = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise).to(device, torch.bfloat16)

    if component == "text_encoder_2":
        tokens = torch.arange(1, 25, device=device)[None]
        out = model(tokens)[0]
    else:
        config = model.config
        ids = torch.stack([torch.arange(16) // 4 * i for i in (0, 1, 1)], dim=1)
        out = model(
            hidden_states=normal(1, 16, config.in_channels),
            encoder_hidden_states=normal(1, 24, config.joint_attention_dim),
            pooled_projections=normal(1, config.pooled_projection_dim),
            timestep=torch.full((1,), 0.5, device=device, dtype=torch.bfloat16),
            guidance=torch.full((1,), 3.5, device=device) if config.guidance_embeds else None,
            img_ids=ids.to(device, torch.bfloat16),
            txt_ids=torch.zeros(24, 3, device=device, dtype=torch.bfloat16),
            return_dict=False,
        )[0]
    return out.float().cpu()


def outputs(variant: dict[str, Any], device: str) -> dict[str, torch.Tensor]:
    """The outputs of a variant's components, loaded as its card says or one by one."""
    if variant["code"]:
        space: dict[str, Any] = {}
        exec(compile(variant["code"], "card", "exec"), space)
        models = {name: getattr(space["pipe"], name) for name in variant["components"]}
    else:
        from fluxconv.converters import open_variant

        opened = open_variant(variant["root"])
        models = {
            name: opened.backend.load(opened.root, name, tuple(files), device)
            for name, files in variant["components"].items()
        }
    return {name: run(name, model.to(device), device) for name, model in models.items()}


def main() -> None:
    """Run every variant of the request; what failed says why instead."""
    import huggingface_hub

    # The code of a card downloads; here the folder is on this disk already.
    huggingface_hub.snapshot_download = lambda repository, **_: repository
    request = json.loads(Path(sys.argv[1]).read_text())
    for variant in request["variants"]:
        try:
            torch.save(outputs(variant, request["device"]), variant["file"])
        except Exception:  # noqa: BLE001 - the test shows it
            Path(variant["file"]).with_suffix(".failed").write_text(traceback.format_exc())


if __name__ == "__main__":
    main()
