"""The limits of the verdict, from a data file: one row for each class of bits per weight."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fluxconv.converters.errors import BadInput, nearest

DEFAULT = Path(__file__).parent / "thresholds.yaml"
#: Every limit that a row must have; what each is held against is in `verdict`.
NAMES = (
    "weights_rms",
    "weights_tensor_rms",
    "weights_stretch_rms",
    "text_rms",
    "text_cosine_min",
    "steps_rms",
    "steps_rms_max",
    "psnr_mean",
    "psnr_worst",
    "ssim_mean",
    "ssim_worst",
    "flip_mean",
    "flip_worst",
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Strict):
    """One limit, and the reason for its value."""

    limit: float
    why: str = Field(min_length=1)


def _all_named(limits: Mapping[str, Limit]) -> Mapping[str, Limit]:
    for name in limits:
        if name not in NAMES:
            raise ValueError(f"unknown limit '{name}'{nearest(name, NAMES)}")
    for name in NAMES:
        if name not in limits:
            raise ValueError(f"the limit '{name}' is missing")
    return limits


#: By name. Errors are at most, similarities (dB, SSIM, cosines) at least the limit.
Limits = Annotated[Mapping[str, Limit], AfterValidator(_all_named)]


class Row(_Strict):
    """The limits for quantized weights of at least `bits` bits each, scales included."""

    bits: float = Field(ge=0)
    limits: Limits


class Thresholds(_Strict):
    """A thresholds file."""

    classes: tuple[Row, ...] = Field(min_length=1)

    def for_bits(self, bits: float) -> Mapping[str, Limit]:
        """The limits of the highest class that `bits` reaches; raises `BadInput` if none does."""
        for row in sorted(self.classes, key=lambda row: -row.bits):
            if bits >= row.bits:
                return row.limits
        raise BadInput(f"the thresholds have no class for {bits:g} bits a weight; add 'bits: 0'")


def load_thresholds(file: Path | None = None) -> Thresholds:
    """The committed thresholds, or those of `file`; raises `BadInput` naming what is wrong."""
    file = file or DEFAULT
    try:
        raw = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{file}: is not a YAML file that can be read") from error
    if not isinstance(raw, dict) or "classes" not in raw:
        raise BadInput(f"{file}: must hold 'classes', as fluxconv's own thresholds do")
    try:
        return Thresholds.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{file}: {where}: {message[:1].lower()}{message[1:]}") from error
