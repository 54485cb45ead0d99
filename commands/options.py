"""Options that several commands share."""

from __future__ import annotations

import click

from fluxconv.converters.errors import MissingRequirement

DEFAULT_CHECKPOINT = "black-forest-labs/FLUX.1-dev"

checkpoint_argument = click.argument(
    "checkpoint", default=DEFAULT_CHECKPOINT, metavar="[CHECKPOINT]"
)
revision_option = click.option(
    "--revision", help="Branch, tag or commit, where CHECKPOINT is a Hub repository."
)
backend_option = click.option(
    "--backend",
    "backends",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Backend to use; give it once for each variant. `fluxconv backends` lists them.",
)
component_option = click.option(
    "--component",
    "components",
    multiple=True,
    metavar="NAME",
    help="Quantize only this component: transformer or text_encoder_2 (default: both).",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes a GPU where there is one.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace a variant that is already there."
)
endpoint_option = click.option(
    "--endpoint", metavar="URL", help="The Hub to talk to (default: HF_ENDPOINT, else the Hub)."
)
variants_argument = click.argument("variants", nargs=-1, required=True, metavar="VARIANT...")


def choose_device(wanted: str) -> str:
    """`cpu` or `cuda`; raises `MissingRequirement` if CUDA was asked for and is not here."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise MissingRequirement(
            "--device cuda: torch sees no CUDA GPU here; use --device cpu, or install a CUDA build "
            "of torch on a machine that has one"
        )
    return "cpu"
