"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxconv.converters.errors import MissingRequirement, UsageError, nearest

if TYPE_CHECKING:
    from fluxconv.converters.backends import Backend

#: Settings with flags of their own; of the first two there may be several, for every backend alike.
_LISTS = {"skip": "--skip", "tensor_types": "--tensor-type"}
_FLAGS = {**_LISTS, "effort": "--effort", "importance": "--importance"}

DEFAULT_CHECKPOINT = "black-forest-labs/FLUX.1-dev"

checkpoint_argument = click.argument(
    "checkpoint", default=DEFAULT_CHECKPOINT, metavar="[CHECKPOINT]"
)
revision_option = click.option(
    "--revision", help="Branch, tag or commit, where CHECKPOINT is a Hub repository."
)
base_option = click.option(
    "--base",
    metavar="PIPELINE",
    help="The pipeline that a single file or lone component belongs to, a folder or "
    "OWNER/NAME[@REVISION]; the rest is taken from it.",
)
requantize_option = click.option(
    "--allow-requantize",
    is_flag=True,
    help="Take a GGUF or fp8 variant as CHECKPOINT; what it lost stays lost.",
)
backend_option = click.option(
    "--backend",
    "backends",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Backend to use; give it once for each variant. `fluxconv backends` lists them.",
)
sign_option = click.option(
    "--sign",
    "private_key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PRIVATE_KEY",
    help="Sign the manifest and every file that it names with this PEM key, into model.sig.",
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=1, max=86_400),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="The longest wait for the Hub while nothing moves, repetitions included.",
)
_SETTINGS = (
    click.option(
        "--option",
        "settings",
        multiple=True,
        metavar="[BACKEND:]KEY=VALUE",
        help="A setting of the backends that have one of that name, or of BACKEND alone.",
    ),
    click.option(
        "--skip",
        multiple=True,
        metavar="REGEX",
        help="Keep modules whose name matches in high precision, in every backend.",
    ),
    click.option(
        "--tensor-type",
        "tensor_types",
        multiple=True,
        metavar="REGEX=TYPE",
        help="GGUF: store tensors as TYPE whose name in the file matches, or the name of a module "
        "of the source that is in them; the first match wins. `plan --tensors` shows which.",
    ),
    click.option(
        "--effort",
        type=click.Choice(["fast", "best"]),
        help="GGUF: how long to search for the closest blocks [best].",
    ),
    click.option(
        "--importance",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="GGUF: weigh errors by FILE, from `fluxconv importance` or llama.cpp's imatrix.",
    ),
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
offload_option = click.option(
    "--offload",
    type=click.Choice(["model", "group"]),
    help="Keep weights in main memory and bring them to the GPU when needed: one model at a time "
    "(model) or one layer at a time (group).",
)
_DRAWING = (
    click.option("--steps", type=int, help="Denoising steps."),
    click.option("--height", type=int, help="Pixels."),
    click.option("--width", type=int, help="Pixels."),
    click.option("--guidance", type=float, help="Guidance scale."),
    click.option("--max-sequence-length", type=int, help="Tokens that T5 reads."),
)


def _without_comparisons(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """`OUT/*` names the comparison that `validate` wrote beside the variants, too."""
    found = tuple(path for path in given if not (Path(path) / "comparison.json").is_file())
    if given and not found:
        raise UsageError(f"{given[0]}: is a comparison of variants; name the variants themselves")
    return found


variants_argument = click.argument(
    "variants",
    nargs=-1,
    required=True,
    metavar="VARIANT...",
    callback=_without_comparisons,
)


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


def drawing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a picture is drawn: keys of `Settings`, None where the user does not say."""
    for option in reversed(_DRAWING):
        command = option(command)
    return command


def backend_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--backend` and everything that sets something about it; see `chosen_backends`."""
    for option in (*reversed(_SETTINGS), backend_option):
        command = option(command)
    return command


def chosen_backends(
    names: tuple[str, ...],
    settings: tuple[str, ...],
    skip: tuple[str, ...],
    tensor_types: tuple[str, ...],
    effort: str | None = None,
    importance: Path | None = None,
) -> tuple[Backend, ...]:
    """The backends asked for, with their settings.

    A setting without a backend's name goes to every backend of the command that has it. Raises
    `UnknownBackend`, `UsageError`, also for a setting that none of them heeds, and `BadInput` for
    an importance file that is none.
    """
    from fluxconv.converters.backends import choose_backends
    from fluxconv.converters.backends.options import parse_options

    backends = choose_backends(names)
    given: dict[str, dict[str, Any]] = {backend.name: {} for backend in backends}
    for text in settings:
        key, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--option {text}: give KEY=VALUE")
        flag = _FLAGS.get(key) or _LISTS.get(key.rpartition(":")[2])
        if flag:
            raise UsageError(f"--option {key}: give {flag} instead")
        for name in _addressed(key, backends):
            given[name][key.rpartition(":")[2]] = value
    flags = {
        "skip": (skip, ""),
        "tensor_types": (tensor_types, "--tensor-type: only GGUF backends have tensor types"),
        "effort": (effort, "--effort: only GGUF backends with blocks search"),
        "importance": (importance, "--importance: only GGUF backends with blocks weigh errors"),
    }
    for key, (wanted, unfit) in flags.items():
        having = [each for each in backends if key in type(each.options).model_fields]
        if wanted and not having:
            raise UsageError(unfit)
        for backend in having if wanted else ():
            given[backend.name].setdefault(key, wanted)
    made = [backend.configured(given[backend.name]) for backend in backends]
    heeded = {key for each in made for key in each.options.changed()}
    for each in backends:
        asked = parse_options(type(each.options), given[each.name], each.name).changed()
        for key in asked.keys() - heeded:
            flag = _FLAGS.get(key, f"--option {key}")
            raise UsageError(f"{each.name}: {flag} changes no byte of its files; leave it out")
    return choose_backends(made)


def _addressed(key: str, backends: tuple[Backend, ...]) -> list[str]:
    """The names of the backends that the setting `[backend:]key` is for."""
    name, _, key = key.rpartition(":")
    names = [backend.name for backend in backends]
    if name:
        if name not in names:
            raise UsageError(f"--option {name}:{key}: no such backend here{nearest(name, names)}")
        return [name]
    having = [each.name for each in backends if key in type(each.options).model_fields]
    return having or names  # none has it: the first one says what it knows
