"""The limits of the verdict, from a data file: one row for each class of bits per weight."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fluxconv.converters.errors import BadInput, nearest

DEFAULT = Path(__file__).parent / "thresholds.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Strict):
    """One limit, and the reason for its value."""

    limit: float
    why: str = Field(min_length=1)


class Limits(_Strict):
    """The limits of one class. Errors are at most, similarities (dB, SSIM) at least the limit."""

    weights_rms: Limit
    weights_tensor_rms: Limit
    weights_stretch_rms: Limit
    psnr_mean: Limit
    psnr_min: Limit
    ssim_mean: Limit
    ssim_min: Limit


class Row(_Strict):
    """The limits for quantized weights of at least `bits` bits each, scales included."""

    bits: float = Field(ge=0)
    limits: Limits


class Thresholds(_Strict):
    """A thresholds file."""

    classes: tuple[Row, ...] = Field(min_length=1)

    def for_bits(self, bits: float) -> Limits:
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
    try:
        return Thresholds.model_validate(raw)
    except ValidationError as error:
        # A misspelt key is also a missing one: the first of these helps more.
        found = error.errors()
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        if not isinstance(raw, dict) or "classes" not in raw:
            raise BadInput(
                f"{file}: must hold 'classes', as fluxconv's own thresholds do"
            ) from error
        where = ".".join(str(part) for part in first["loc"])
        hint = ""
        if first["type"] == "extra_forbidden":
            hint = nearest(str(first["loc"][-1]), {*Limits.model_fields, *Limit.model_fields})
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise BadInput(f"{file}: {where}: {message}{hint}") from error
