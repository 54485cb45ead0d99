"""diffusers' layerwise casting: float8 weights without scales, cast to bf16 while their layer runs.

Stored for each cast tensor: the tensor itself in float8, nothing else; `config.json` says nothing
of it. `from_pretrained(dtype=torch.bfloat16)` reads it back into bf16, and casting is switched on
again.
Source: diffusers, `hooks/layerwise_casting.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fluxconv.converters import dtypes
from fluxconv.converters.architectures import Architecture, TensorSpec
from fluxconv.converters.backends.base import (
    Backend,
    PlannedTensor,
    Requirement,
    Target,
    kept,
    plain,
)
from fluxconv.converters.backends.options import Options
from fluxconv.converters.errors import BadWeight

if TYPE_CHECKING:
    import torch

#: `DEFAULT_SKIP_MODULES_PATTERN`; Flux's own `_skip_layerwise_casting_patterns` add none to it.
DEFAULT_PATTERNS = ("pos_embed", "patch_embed", "norm", "^proj_in$", "^proj_out$")
#: What else must be left alone, by component, and why.
MORE_PATTERNS: Mapping[str, Mapping[str, str]] = {
    "text_encoder_2": {
        # transformers takes the first parameter's type for the model's, and the pipeline casts the
        # encoded prompt to that.
        "^shared$": "embedding, whose type the encoded prompt is cast to",
        "embed_tokens$": "embedding, whose type the encoded prompt is cast to",
        # T5's position embedding, which diffusers' own models have under a name of the defaults.
        "relative_attention_bias$": "relative position bias",
        # `T5DenseGatedActDense.forward` reads that type before the hook can cast the weight.
        "wo$": "T5 wo, to whose stored type T5 casts its input",
    }
}
_STORED = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}

_IMPORTS = """\
import torch
from diffusers import FluxPipeline
from diffusers.hooks import apply_layerwise_casting

pipe = FluxPipeline.from_pretrained("{repository}", dtype=torch.bfloat16)
"""
_CAST = """\
apply_layerwise_casting(
    pipe.{component},
    storage_dtype=torch.{storage_dtype},
    compute_dtype=torch.bfloat16,
    skip_modules_pattern=(
{patterns}    ),
)
"""


class LayerwiseOptions(Options):
    """`skip` adds to the patterns of modules that are left alone, with all that is in them."""

    storage_dtype: Literal["float8_e4m3fn", "float8_e5m2"] = "float8_e4m3fn"


@dataclass(frozen=True)
class Layerwise(Backend):
    """Linear layers and embeddings in `storage_dtype`, biases included."""

    container: ClassVar[Literal["safetensors", "gguf"]] = "safetensors"

    options: LayerwiseOptions = LayerwiseOptions()  # noqa: RUF009 - frozen

    @property
    def rows_alone(self) -> bool:
        return True

    def patterns(self, component: str) -> tuple[str, ...]:
        """The `skip_modules_pattern` that gives the stored types."""
        return (*DEFAULT_PATTERNS, *MORE_PATTERNS.get(component, ()), *self.options.skip)

    # What is stored ----------------------------------------------------------------------------

    def asks_to_skip(self, spec: TensorSpec) -> bool:
        # The patterns go to diffusers as they are, which knows its own names alone.
        return _first_match(self.options.skip, spec.module) is not None

    def plan_tensor(self, target: Target, architecture: Architecture) -> PlannedTensor:
        module = target.name.rsplit(".", 1)[0]
        if target.kind == "norm":
            return kept(target, "norm")
        if _first_match(self.options.skip, module) is not None:
            return self.plan_skipped(target, architecture)
        pattern = _first_match(self.patterns(architecture.component), module)
        if pattern is not None:
            whys = MORE_PATTERNS.get(architecture.component, {})
            return kept(target, whys.get(pattern, f"layerwise casting leaves out '{pattern}'"))
        stored = plain(target.name, _STORED[self.options.storage_dtype], target.shape)
        return PlannedTensor(target, (stored,), "quantized")

    def encode(self, weight: torch.Tensor, planned: PlannedTensor) -> dict[str, torch.Tensor]:
        import torch

        (stored,) = planned.stored
        float8 = dtypes.torch_dtype(stored.dtype)
        largest = max(abs(float(extreme)) for extreme in weight.aminmax())
        limit = torch.finfo(float8).max
        # The cast alone would cut it off, or give infinity or NaN, by type, device and version.
        if largest > limit:
            raise BadWeight(
                f"'{planned.name}' holds {largest:g}, beyond the {limit:g} of "
                f"{self.options.storage_dtype}; name its module with --skip, or choose another "
                "backend"
            )
        return {stored.name: weight.to(float8)}

    def decode(self, stored: Mapping[str, torch.Tensor], planned: PlannedTensor) -> torch.Tensor:
        import torch

        return stored[planned.name].to(torch.bfloat16)

    # Loading -----------------------------------------------------------------------------------

    def snippet(self, repository: str, files: Mapping[str, str]) -> str:
        return _IMPORTS.format(repository=repository) + "".join(
            _CAST.format(
                component=component,
                storage_dtype=self.options.storage_dtype,
                patterns="".join(f"        {each!r},\n" for each in self.patterns(component)),
            )
            for component in files
        )

    def load(
        self, root: Path, component: str, files: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        from diffusers.hooks import apply_layerwise_casting

        model = _from_pretrained(root / component, component)
        apply_layerwise_casting(
            model, **self._types(), skip_modules_pattern=self.patterns(component)
        )
        return model

    # The library's own way ---------------------------------------------------------------------

    def library_refuses(self, architecture: Architecture, device: str) -> str | None:
        return None

    def quantize_with_library(
        self, folder: Path, architecture: Architecture, skipped: tuple[str, ...], device: str
    ) -> torch.nn.Module:
        from diffusers.hooks import apply_layerwise_casting
        from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN

        model = _from_pretrained(folder, architecture.component).to(device)
        if architecture.library == "diffusers":
            # Given patterns replace the defaults.
            more = self.options.skip and (*DEFAULT_SKIP_MODULES_PATTERN, *self.options.skip)
            enable: Any = model.enable_layerwise_casting
            enable(**self._types(), skip_modules_pattern=more or None)
        else:
            patterns = self.patterns(architecture.component)
            apply_layerwise_casting(model, **self._types(), skip_modules_pattern=patterns)
        return model

    def _types(self) -> dict[str, Any]:
        import torch

        stored = dtypes.torch_dtype(_STORED[self.options.storage_dtype])
        return {"storage_dtype": stored, "compute_dtype": torch.bfloat16}


def _first_match(patterns: Sequence[str], module: str) -> str | None:
    """The first pattern that is found in the path of `module`, or in that of one it stands in."""
    parts = module.split(".")
    paths = ["", *accumulate(parts, "{}.{}".format)]
    return next((each for each in patterns if any(re.search(each, path) for path in paths)), None)


def _from_pretrained(folder: Path, component: str) -> torch.nn.Module:
    import torch

    from fluxconv.converters.load import model_class

    model: torch.nn.Module = model_class(component).from_pretrained(
        folder, dtype=torch.bfloat16, local_files_only=True
    )
    return model


BACKENDS = (
    Layerwise(
        name="fp8-layerwise",
        title="diffusers layerwise casting, float8 without scales",
        requirement=Requirement("diffusers", "0.42"),
        bits=8.0,
        quantizes_on=("cpu", "cuda"),
        runs_on=("cpu", "cuda"),
        loads_in=("diffusers", "transformers"),
    ),
)
