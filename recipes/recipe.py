"""What a recipe says: checkpoints, backends, how to check them, where to publish them.

The keys of the YAML file are the fields of these models; an unknown one is refused. Paths are
relative to the recipe's own folder.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=1000)]


class Part(BaseModel):
    """A part of a recipe: nothing that it does not know, nothing changed once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckpointRow(Part):
    """A checkpoint to convert: a folder or file here, a Hub repository, or a file in one."""

    id: Text
    revision: Text | None = None
    base: Text | None = None
    allow_requantize: bool = False


class BackendRow(Part):
    """A backend with its settings; a name alone stands for the defaults. `checkpoints` names those
    it is for, all of them if it is left out."""

    backend: Text
    options: dict[str, Any] = {}
    skip: tuple[str, ...] = ()
    tensor_types: tuple[str, ...] = ()
    effort: Literal["fast", "best"] | None = None
    importance: Text | None = None
    checkpoints: tuple[Text, ...] | None = None


def _row(key: str) -> BeforeValidator:
    """A name alone, where a row with more is not needed."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class Validation(Part):
    """How variants are held against their source. What is null comes from the preset, or from the
    checkpoint's own `validation.yaml`."""

    preset: Literal["quick", "standard", "full"] = "standard"
    thresholds: Text | None = None
    prompts: Text | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    height: Annotated[int, Field(gt=0, le=8192, multiple_of=8)] | None = None
    width: Annotated[int, Field(gt=0, le=8192, multiple_of=8)] | None = None
    steps: Annotated[int, Field(gt=0, le=1000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] | None = None
    trajectories: Annotated[int, Field(gt=0)] | None = None
    noise: Annotated[int, Field(ge=0)] | None = None
    offload: Literal["model", "group"] | None = None
    cache: Text | None = None


class PerformancePart(Part):
    """Whether memory and time are measured, and in which modes (see `fluxconv benchmark`)."""

    modes: tuple[Text, ...] = ("plain",)


class CardPart(Part):
    """What cards hold besides what was measured. `sign` is a private key in PEM."""

    blind_tests: tuple[Text, ...] = ()
    sign: Text | None = None


class PublicationPart(Part):
    """Where the variants go. With `all_or_nothing`, nothing is published if any variant failed."""

    namespace: Text
    collection: Text | None = None
    visibility: Literal["public", "private"] | None = None
    gated: Literal["auto", "manual", "off"] | None = None
    replace: bool = False
    all_or_nothing: bool = False
    timeout: Annotated[float, Field(gt=0)] = 120.0


class ExecutorPart(Part):
    """What does the work. `processes` null: one for each GPU, or as many as memory and cores allow.
    `parts` is into how many the pass over a checkpoint is split. `address` is that of a Ray
    cluster."""

    kind: Literal["local", "ray"] = "local"
    processes: Annotated[int, Field(gt=0)] | None = None
    parts: Annotated[int, Field(gt=0)] | None = None
    address: Text | None = None


class Recipe(Part):
    """A release. `output` is the folder of the variants, or an fsspec URL."""

    checkpoints: Annotated[tuple[Annotated[CheckpointRow, _row("id")], ...], Field(min_length=1)]
    backends: Annotated[tuple[Annotated[BackendRow, _row("backend")], ...], Field(min_length=1)]
    components: tuple[Literal["transformer", "text_encoder_2"], ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    output: Text = "out"
    validation: Validation = Validation()
    performance: PerformancePart | None = PerformancePart()
    card: CardPart = CardPart()
    publication: PublicationPart | None = None
    executor: ExecutorPart = ExecutorPart()
