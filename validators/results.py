"""What each layer of a validation measured: the parts of `report.json`.

An "error" is relative: the root mean square of the difference over that of the source. A "cosine"
is 1 where two things point the same way. Sizes are bytes, times seconds.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A record that never changes and takes no unknown field."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ComponentExecution(Strict):
    """How a component ran: by its library, or decoded to bf16 first, and why."""

    mode: Literal["native", "decoded"]
    why: str = ""


class Machine(Strict):
    """What measured; `memory` and `gpu_memory` are what it has in all."""

    system: str
    processor: str
    cores: int
    memory: int
    gpu: str | None = None
    gpu_memory: int | None = None


class StructureResult(Strict):
    """The files against the plan and the manifest, seen by a fresh process."""

    files: int
    tensors: int
    problems: tuple[str, ...]


class TensorError(Strict):
    """One quantized tensor, decoded, against its source.

    `type` is what it is stored as, `snr` the signal-to-noise ratio in dB (null if there is no
    error), `largest` the largest absolute error. `gain` is the factor that, put on the source,
    comes closest to what was decoded: 1 but for rounding, else a scale is wrong.
    """

    name: str
    type: str
    weights: int
    relative_rms: float
    snr: float | None
    largest: float
    cosine: float
    gain: float


class KindError(Strict):
    """All quantized tensors of one kind together: `name` has `*` for the number of the block."""

    name: str
    tensors: int
    weights: int
    relative_rms: float


class StretchError(Strict):
    """Relative RMS error of 256 neighbouring weights of one row, from `column` on.

    Relative to their own size, or to that of 256 average weights of the tensor if that is larger.
    """

    name: str
    row: int
    column: int
    relative_rms: float


class WeightsResult(Strict):
    """Errors of one component; `relative_rms` is over all its quantized weights together.

    `tensors` are the quantized ones in the model's order; `kept` counts the others. `problems`
    names kept tensors that differ from their source, tensors that could not be compared, and those
    whose error is not of the kind that their type gives.
    """

    relative_rms: float
    tensors: tuple[TensorError, ...] = ()
    kinds: tuple[KindError, ...] = ()
    kept: int = 0
    worst_stretch: StretchError | None = None
    problems: tuple[str, ...] = ()

    @property
    def worst(self) -> tuple[TensorError, ...]:
        """The ten tensors with the largest errors, the worst first."""
        return tuple(sorted(self.tensors, key=lambda tensor: -tensor.relative_rms)[:10])


class PromptText(Strict):
    """T5's hidden states of one prompt; over its own tokens, padding left out.

    `errors` and `cosines` hold one number a token.
    """

    prompt: str
    relative_rms: float
    errors: tuple[float, ...]
    cosines: tuple[float, ...]


class TextResult(Strict):
    """T5's hidden states on the prompts: over all tokens, and the worst token's cosine."""

    prompts: tuple[PromptText, ...]
    relative_rms: float
    cosine_mean: float
    cosine_min: float


class StepError(Strict):
    """The predicted velocity of one step, from the very input that the source had."""

    timestep: float
    relative_rms: float
    cosine: float


class Trajectory(Strict):
    """The steps of one drawing of the source, each done again by the variant."""

    prompt: str
    seed: int
    steps: tuple[StepError, ...]


class StepsResult(Strict):
    """Teacher-forced steps: errors over all steps together, and of the worst one."""

    trajectories: tuple[Trajectory, ...]
    relative_rms: float
    relative_rms_max: float
    cosine_mean: float
    cosine_min: float


class Summary(Strict):
    """One score over all pictures; null where every picture's is (PSNR of equal pictures)."""

    mean: float | None
    worst: float | None


class Picture(Strict):
    """One prompt and seed drawn by the source and by the variant; paths inside the variant.

    `scores` has one number for each metric (see `metrics.METRICS`); null is infinity (PSNR of equal
    pictures). `flip_map` is where FLIP sees differences, dark for none.
    """

    prompt: str
    seed: int
    source: str
    variant: str
    flip_map: str
    scores: dict[str, float | None]


class PicturesResult(Strict):
    """All pictures and a summary of each score.

    `seconds` is what the variant took to draw them all (loading not counted), `source_seconds` the
    source. `problems` names pictures that show nothing where the source's do.
    """

    pictures: tuple[Picture, ...]
    summary: dict[str, Summary]
    seconds: float
    source_seconds: float | None = None
    problems: tuple[str, ...] = ()


class NoiseFloor(Strict):
    """The source against itself: what differs although nothing was quantized.

    `again` is a second run on the same machine, `other` a run in `dtype`, with the error of its
    steps in `steps_rms`; both over the first `pictures` pictures. Null where it was not measured,
    and `why`.
    """

    pictures: int
    again: dict[str, Summary]
    dtype: str | None = None
    other: dict[str, Summary] | None = None
    steps_rms: float | None = None
    why: str = ""


class Performance(Strict):
    """One way to run the pipeline, in a process of its own.

    On a GPU memory is what torch has allocated on it, on a CPU the resident memory of the process.
    `seconds` is the median over `pictures` pictures after one that is not counted; compiling is
    counted in `compile_seconds` alone. `why` says why it did not run; the figures are then null.
    """

    mode: str
    device: str
    execution: dict[str, ComponentExecution]
    pictures: int = 0
    load_seconds: float | None = None
    memory_loaded: int | None = None
    memory_peak: int | None = None
    seconds: float | None = None
    compile_seconds: float | None = None
    why: str = ""


class Check(Strict):
    """One threshold held against one measurement."""

    name: str
    value: float | None
    limit: float
    passed: bool
    text: str


class Verdict(Strict):
    """Passed if every check passed."""

    passed: bool
    checks: tuple[Check, ...]
