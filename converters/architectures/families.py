"""The members of the FLUX.1 family that a transformer's shapes tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """Models with the same inputs: `in_channels` image channels in, with or without `guidance`."""

    name: str
    in_channels: int
    guidance: bool
    title: str


# Channels (diffusers' pipelines of these names): 64 are one latent patch; Fill adds another and a
# mask, 64 + 64 + 256; Depth and Canny add the picture that steers.
FAMILIES = (
    Family("dev", 64, True, "FLUX.1-dev, Kontext or Krea"),
    Family("schnell", 64, False, "FLUX.1-schnell"),
    Family("fill", 384, True, "FLUX.1-Fill-dev"),
    Family("depth-canny", 128, True, "FLUX.1-Depth-dev or FLUX.1-Canny-dev"),
)


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a Flux transformer with this `config.json`; one called `other` for a model
    with inputs of its own. For a file without a config, see `recognise`."""
    channels, guidance = int(config["in_channels"]), bool(config.get("guidance_embeds"))
    for family in FAMILIES:
        if (family.in_channels, family.guidance) == (channels, guidance):
            return family
    return Family("other", channels, guidance, "a Flux transformer of another family")
