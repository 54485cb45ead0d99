"""A transformer in one safetensors file, as community sites and ComfyUI have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import FLUX
from fluxconv.converters.architectures.families import family_of
from fluxconv.converters.architectures.recognition import Recognised, recognise
from fluxconv.converters.component import Component
from fluxconv.converters.errors import NotACheckpoint
from fluxconv.converters.safetensors_header import read_header
from fluxconv.converters.sources.folder import PICKLE_ADVICE, PICKLES
from fluxconv.converters.sources.foreign import how_quantized, seems_to_be
from fluxconv.converters.sources.matching import match


@dataclass(frozen=True)
class BaseConfig:
    """The config of a transformer that the file takes the place of, and where it stands."""

    values: Mapping[str, Any]
    file: Path
    recorded: str


def open_single_file(file: Path, base: BaseConfig | None) -> tuple[Component, tuple[str, ...]]:
    """The transformer in `file`, and what should be said about opening it.

    Its config is that of `base`, if it fits the shapes; else it is inferred from them. Raises
    `NotACheckpoint` saying what else the file seems to be, `MalformedFile`.
    """
    require_single_file(file)
    header = read_header(file)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    found = recognise({tensor.name: tensor.shape for tensor in header.tensors})
    if found is None:
        raise NotACheckpoint(f"{file}: {how_quantized(tensors) or seems_to_be(tensors)}")
    found = described(file, found, base)
    others = [name for name in tensors if not name.startswith(found.prefix)]
    steps = match(
        file,
        f"{FLUX.title} under {found.layout.title}",
        tensors,
        found.parts,
        ignored=others,
        prefix=found.prefix,
    )
    recorded = {file.name: file} | ({base.recorded: base.file} if base else {})
    component = Component(FLUX.component, file, found.config, FLUX, (header,), steps, recorded)
    return component, left_out(file, others, "transformer")


def require_single_file(file: Path) -> None:
    """Raise `NotACheckpoint` unless the file is called a safetensors or GGUF file."""
    if file.suffix in PICKLES:
        raise NotACheckpoint(f"{file}: {PICKLE_ADVICE}")
    if file.suffix not in (".safetensors", ".gguf"):
        raise NotACheckpoint(
            f"{file}: is no safetensors file; give one, or the folder of a diffusers checkpoint"
        )


def described(file: Path, found: Recognised, base: BaseConfig | None) -> Recognised:
    """The same with the config of `base`, which must agree with what the shapes tell.

    Raises `NotACheckpoint` if it does not, or if there is none and shapes do not tell enough.
    """
    if base is None:
        if "axes_dims_rope" not in found.config:
            head = found.config["attention_head_dim"]
            raise NotACheckpoint(
                f"{file}: has heads of width {head}, not FLUX.1's 128, so its config cannot be "
                "told from its tensors; give the pipeline that it belongs to with --base"
            )
        return found
    try:
        here, there = _numbers(found.config), _numbers(base.values)
    except (KeyError, TypeError, ValueError) as error:
        raise NotACheckpoint(f"{base.file}: lacks or garbles {error}") from error
    differing = [
        f"{key} is {here[key]} and not {there[key]}" for key in here if here[key] != there[key]
    ]
    if differing:
        raise NotACheckpoint(
            f"{file}: is {family_of(found.config).title} and does not fit {base.file}: "
            f"{', '.join(differing)}; give the pipeline that it belongs to with --base"
        )
    return replace(found, config=base.values)


def _numbers(config: Mapping[str, Any]) -> dict[str, int]:
    """What shapes can tell of a config, in one form for all who leave out what is the default."""
    required = ("num_layers", "num_single_layers", "attention_head_dim", "num_attention_heads")
    widths = ("in_channels", "joint_attention_dim", "pooled_projection_dim")
    return {key: int(config[key]) for key in (*required, *widths)} | {
        "out_channels": int(config.get("out_channels") or config["in_channels"]),
        "guidance_embeds": bool(config.get("guidance_embeds")),
    }


def left_out(file: Path, others: list[str], taken: str) -> tuple[str, ...]:
    """What to say about the tensors `others` of a file of which only `taken` is."""
    if not others:
        return ()
    parts = sorted({name.split(".")[0] for name in others})
    return (
        f"{file.name}: {len(others)} tensors of other parts of a model ({', '.join(parts[:5])}) "
        f"are left out; only the {taken} is taken",
    )
