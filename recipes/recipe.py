"""What a recipe says: checkpoints, backends, how to check them, where to publish them.

The keys of the YAML file are the fields of these models, and the texts below them are what the JSON
Schema tells an editor. An unknown key is refused. Paths are relative to the recipe's own folder; a
`~` at their beginning is the home folder, and nothing is taken from the environment. A recipe names
no Hub and no token: those come from the environment, so that a stranger's recipe cannot send a
token anywhere.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fluxconv.recipes.contradictions import contradictions, refuse


def _text(value: str) -> str:
    if any(unicodedata.category(each) in ("Cc", "Cs") for each in value):
        raise ValueError("holds a control character; remove it")
    return value


Text = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_text)]
# Strict: `yes`, "8" and 8.5 are no whole numbers, though pydantic could make them into such.
Count = Annotated[int, Field(strict=True, gt=0)]
Pixels = Annotated[int, Field(strict=True, gt=0, le=8192, multiple_of=8)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]


class Part(BaseModel):
    """A part of a recipe: nothing that it does not know, nothing changed once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CheckpointRow(Part):
    """A checkpoint to convert."""

    id: Text
    """A folder or file, a Hub repository (`owner/name`), or a file in one
    (`owner/name/file.safetensors`)."""
    revision: Text | None = None
    """Branch, tag or commit, where `id` is on the Hub. Only a commit stays the same for ever."""
    source_id: Text | None = None
    """The Hub repository (`owner/name`) that a local `id` is a copy of; cards then name it."""
    base: Text | None = None
    """The pipeline that a single file or lone component belongs to: a folder, or
    `owner/name[@revision]`."""
    allow_requantize: Flag = False
    """Take a GGUF or fp8 variant as the source; what it lost stays lost."""


class BackendRow(Part):
    """A backend with its settings. Those that are not the defaults become part of the variant's
    name."""

    backend: Text
    """Its name, as `fluxconv backends` lists it."""
    options: dict[str, Any] = {}
    """Settings of this backend alone, such as `double_quant: true`."""
    skip: tuple[Text, ...] = ()
    """Regular expressions: modules whose name matches one stay in high precision."""
    tensor_types: tuple[Text, ...] = ()
    """GGUF: `REGEX=TYPE`, the type of tensors whose name matches; the first match wins."""
    effort: Literal["fast", "best"] | None = None
    """GGUF: how long to search for the closest blocks (default: best)."""
    importance: Text | None = None
    """GGUF: weigh errors by this file, from `fluxconv importance` or llama.cpp's imatrix."""
    checkpoints: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """The `id` of each checkpoint it is for (default: all of them)."""


def _row(key: str) -> BeforeValidator:
    """A name alone, where a row with more is not needed."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class Validation(Part):
    """How variants are held against their source. What is left out comes from the checkpoint's own
    `validation.yaml`, if it has one, and else from the preset."""

    preset: Literal["quick", "standard", "full"] = "standard"
    """How much is drawn: 4 pictures of 512 pixels, 12 of 1024, or all of 1024 in 50 steps."""
    thresholds: Text | None = None
    """A file of limits to hold the measurements against (default: fluxconv's own)."""
    prompts: Text | None = None
    """A text file with one prompt a line."""
    limit: Count | None = None
    """Draw only the first so many prompts."""
    height: Pixels | None = None
    """Pixels, a multiple of 8."""
    width: Pixels | None = None
    """Pixels, a multiple of 8."""
    steps: Annotated[Count, Field(le=1000)] | None = None
    """Denoising steps."""
    guidance: Annotated[Number, Field(ge=0, le=100)] | None = None
    """Guidance scale."""
    max_sequence_length: Annotated[Count, Field(le=512)] | None = None
    """Tokens that T5 reads."""
    seeds: (
        Annotated[
            tuple[Annotated[int, Field(strict=True, ge=0, lt=2**63)], ...], Field(min_length=1)
        ]
        | None
    ) = None
    """Every prompt is drawn from each of these seeds."""
    trajectories: Count | None = None
    """Of so many drawings the steps are compared one by one."""
    noise: Annotated[int, Field(strict=True, ge=0)] | None = None
    """So many pictures are drawn again by the source, for the noise floor."""
    offload: Literal["model", "group"] | None = None
    """Bring weights to the GPU one model or one layer at a time while drawing."""
    cache: Text | None = None
    """Folder where the source's pictures are kept (default: the user's cache)."""

    @property
    def overrides(self) -> dict[str, Any]:
        """What `load_settings` takes as overrides: keys of `Settings`, None where nothing is
        said."""
        others = {"preset", "thresholds", "prompts", "limit", "offload", "cache"}
        return self.model_dump(exclude=others)


class PerformancePart(Part):
    """How memory and time are measured."""

    modes: Annotated[tuple[Text, ...], Field(min_length=1)] = ("plain",)
    """Ways to run: all of it on the device, offloaded, compiled."""


class CardPart(Part):
    """What cards hold besides what was measured."""

    blind_tests: tuple[Text, ...] = ()
    """Results of the blind test, as `report.html` saves them."""
    sign: Text | None = None
    """File of a private key in PEM: signs the manifest and every file that it names."""


class PublicationPart(Part):
    """Where the variants go. The Hub's address and the token are taken from HF_ENDPOINT and
    HF_TOKEN, or from `hf auth login`."""

    namespace: Text
    """User or organisation to publish as."""
    collection: Text | None = None
    """Title of the collection that lists the repositories."""
    visibility: Literal["public", "private"] | None = None
    """How the repositories end up (default: new ones public, others as they are)."""
    gated: Literal["auto", "manual", "off"] | None = None
    """Ask whoever downloads for consent (default: as the source does)."""
    replace: Flag = False
    """Publish into a repository with files of others, which stay."""
    all_or_nothing: Flag = False
    """Publish nothing if any variant failed."""
    timeout: Annotated[Number, Field(gt=0)] = 120.0
    """The longest wait for the Hub while nothing moves, in seconds."""


class ExecutorPart(Part):
    """What does the work."""

    kind: Literal["local", "ray"] = "local"
    """Processes on this machine, or a Ray cluster."""
    processes: Count | None = None
    """How many at a time (default: one for each GPU, or as many as memory and cores allow)."""
    parts: Count | None = None
    """Into how many parts the pass over each checkpoint is split (default: 1)."""
    address: Text | None = None
    """Ray: where the cluster is, or `auto`."""


class Recipe(Part):
    """A release: every backend of every checkpoint, validated, with cards, and published."""

    checkpoints: Annotated[tuple[Annotated[CheckpointRow, _row("id")], ...], Field(min_length=1)]
    """What to convert; a name or path alone, or a row with more."""
    backends: Annotated[tuple[Annotated[BackendRow, _row("backend")], ...], Field(min_length=1)]
    """What to make of each checkpoint; a backend's name alone, or a row with settings."""
    components: tuple[Literal["transformer", "text_encoder_2"], ...] = ()
    """Quantize only these (default: all that a checkpoint has)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    output: Text = "out"
    """The folder of the variants, or an fsspec URL."""
    validation: Validation = Validation()
    performance: PerformancePart | None = PerformancePart()
    """Null measures neither memory nor time."""
    card: CardPart = CardPart()
    publication: PublicationPart | None = None
    """Nothing is published without this."""
    executor: ExecutorPart = ExecutorPart()

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        refuse(contradictions(self))
        return self
