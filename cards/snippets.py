"""The code of a card: load the variant, draw one picture of the report again."""

from __future__ import annotations

from fluxconv.cards.escaping import python_literal
from fluxconv.cards.naming import is_hub_id
from fluxconv.converters.errors import UsageError
from fluxconv.converters.loading_code import loading_code
from fluxconv.converters.variant import Variant
from fluxconv.validators.report import Settings
from fluxconv.validators.settings import load_settings

_DRAWING = """
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
image = pipe(
    prompt={prompt},
    height={height},
    width={width},
    num_inference_steps={steps},
    guidance_scale={guidance},
    max_sequence_length={max_sequence_length},
    generator=torch.Generator("cpu").manual_seed({seed}),
).images[0]
image.save("picture.png")
"""


def loading_snippet(variant: Variant, repository: str, settings: Settings) -> str:
    """Python that loads the variant from the Hub with public libraries and draws `picture.png`.

    Raises `UsageError` if `repository` is not `owner/name`.
    """
    if not is_hub_id(repository):
        raise UsageError(f"'{repository}' cannot be a repository; give OWNER/NAME")
    drawing = _DRAWING.format(
        prompt=python_literal(settings.prompts[0]),
        height=settings.height,
        width=settings.width,
        steps=settings.steps,
        guidance=settings.guidance,
        max_sequence_length=settings.max_sequence_length,
        seed=settings.seeds[0],
    )
    return loading_code(variant, repository).rstrip("\n") + "\n" + drawing


def drawing_settings(variant: Variant) -> Settings:
    """What would be drawn for a variant without a report; raises `BadInput`."""
    return load_settings(variant.root)
