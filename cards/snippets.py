"""The code of a card: every way to load the variant and draw one picture of the report again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from fnmatch import fnmatch

from fluxconv.cards.escaping import one_line, python_literal
from fluxconv.cards.naming import is_hub_id, shares_repository
from fluxconv.converters.errors import UsageError
from fluxconv.converters.loading_code import loading_code
from fluxconv.converters.variant import Variant
from fluxconv.validators.candidates import rules
from fluxconv.validators.report import Settings
from fluxconv.validators.settings import load_settings

_DRAWING = """
{placing}
image = pipe(
    prompt={prompt},
    height={height},
    width={width},
    num_inference_steps={steps},
    guidance_scale={guidance},
    max_sequence_length={max_sequence_length},
    generator=torch.Generator("cpu").manual_seed({seed}),
).images[0]
image.save("picture.png")"""


@dataclass(frozen=True)
class Way:
    """One way to use a variant: `code` in a block of `language`, and what to know about it.

    `name` is that of the mode (`fluxconv.converters.modes`), or of the program.
    """

    name: str
    title: str
    language: str
    code: str
    note: str = ""


@dataclass(frozen=True)
class _Placing:
    """How a loaded pipeline gets to where it computes, as the guides of diffusers have it."""

    mode: str
    title: str
    code: str
    note: str = ""


_PLAIN = _Placing("plain", "diffusers", 'pipe.to("cuda" if torch.cuda.is_available() else "cpu")')
_OTHERS = (
    _Placing(
        "offload-model",
        "diffusers, with one model at a time on the GPU",
        "pipe.enable_model_cpu_offload()",
        "Needs a GPU, and main memory for the whole pipeline; a little slower.",
    ),
    _Placing(
        "offload-group",
        "diffusers, with one layer at a time on the GPU",
        """pipe.enable_group_offload(
    onload_device=torch.device("cuda"),
    offload_device=torch.device("cpu"),
    offload_type="leaf_level",
    use_stream=True,
)""",
        "Needs a GPU, and main memory for twice the pipeline; several times slower.",
    ),
    _Placing(
        "compile",
        "diffusers, compiled",
        'pipe.to("cuda")\npipe.transformer.compile_repeated_blocks()',
        "Needs a GPU; the first picture takes longer, every other one less.",
    ),
)


def python_ways(variant: Variant, repository: str, settings: Settings) -> list[Way]:
    """Python that loads the variant from the Hub with public libraries and draws `picture.png`.

    Plain first, then offloaded, if its library can, and compiled. Raises `UsageError` if
    `repository` is not `owner/name`.
    """
    if not is_hub_id(repository):
        raise UsageError(f"'{repository}' cannot be a repository; give OWNER/NAME")
    kept = [
        row["does"]
        for row in rules()["offloading"]
        if fnmatch(variant.backend.name, row["backends"])
    ]
    can_offload = kept[:1] != ["stays"]
    loading = loading_code(variant, repository).rstrip("\n")
    return [
        Way(way.mode, way.title, "python", f"{loading}\n{_drawing(way, settings)}", way.note)
        for way in (_PLAIN, *_OTHERS)
        if can_offload or not way.mode.startswith("offload")
    ]


def program_ways(variant: Variant, repository: str, settings: Settings) -> list[Way]:
    """Shell lines for the programs that read GGUF files; none for any other variant."""
    files = {name: each.files[0] for name, each in variant.manifest.components.items()}
    if not shares_repository(variant) or "transformer" not in files:
        return []
    if not is_hub_id(repository):
        raise UsageError(f"'{repository}' cannot be a repository; give OWNER/NAME")
    folders = {"transformer": "ComfyUI/models/unet", "text_encoder_2": "ComfyUI/models/clip"}
    comfy = [
        _words("hf", "download", repository, file, "--local-dir", folders[name])
        for name, file in files.items()
    ]
    options = {"transformer": "--diffusion-model", "text_encoder_2": "--t5xxl"}
    drawn = [word for name, file in files.items() for word in (options[name], file)]
    drawn += ["--clip_l", "clip_l.safetensors", "--vae", "ae.safetensors"]
    drawn += ["--cfg-scale", "1", "--guidance", str(settings.guidance)]
    drawn += ["--sampling-method", "euler", "--steps", str(settings.steps)]
    drawn += ["-W", str(settings.width), "-H", str(settings.height)]
    drawn += ["-s", str(settings.seeds[0]), "-p", settings.prompts[0], "-o", "picture.png"]
    fetched = _words("hf", "download", repository, *files.values(), "--local-dir", ".")
    return [
        Way(
            "comfyui",
            "ComfyUI",
            "sh",
            "\n".join(comfy),
            "With the nodes of [ComfyUI-GGUF](https://github.com/city96/ComfyUI-GGUF): put "
            "*Unet Loader (GGUF)* in place of *Load Diffusion Model*, and *DualCLIPLoader (GGUF)* "
            "of type `flux` in place of *DualCLIPLoader*. CLIP and the VAE are the source's.",
        ),
        Way(
            "stable-diffusion.cpp",
            "stable-diffusion.cpp",
            "sh",
            f"{fetched}\n{_words('sd-cli', *drawn)}",
            "`clip_l.safetensors` and `ae.safetensors` are the source's CLIP and VAE, as "
            "[its guide](https://github.com/leejet/stable-diffusion.cpp/blob/master/docs/flux.md) "
            "has them. It starts from other noise, so it draws another picture.",
        ),
    ]


def drawing_settings(variant: Variant) -> Settings:
    """What would be drawn for a variant without a report; raises `BadInput`."""
    return load_settings(variant.root)


def _drawing(placing: _Placing, settings: Settings) -> str:
    return _DRAWING.format(
        placing=placing.code,
        prompt=python_literal(settings.prompts[0]),
        height=settings.height,
        width=settings.width,
        steps=settings.steps,
        guidance=settings.guidance,
        max_sequence_length=settings.max_sequence_length,
        seed=settings.seeds[0],
    )


def _words(*words: str) -> str:
    """A line of shell, free of anything that could end a card: `''` inside quotes is nothing."""
    line = shlex.join(one_line(word) for word in words)
    return line.replace("<!--", "<''!--").replace("-->", "--''>")
