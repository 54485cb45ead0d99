"""What the tests share: the tiny Flux that really draws, and its variants, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, open_variant, quantize
from fluxconv.converters.backends import all_backends
from fluxconv.validators import load_settings, validate

TINY_FLUX = Path(__file__).parent / "checkpoints" / "tiny-flux"


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Checkpoint:
    """The trained tiny pipeline. Read-only."""
    return open_checkpoint(TINY_FLUX)


@pytest.fixture(scope="session")
def tiny_variants(
    tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Variant]:
    """One variant of the tiny pipeline for each backend. Copy before changing one."""
    names = list(all_backends())
    made = quantize(tiny_checkpoint, names, tmp_path_factory.mktemp("variants"))
    return dict(zip(names, made, strict=True))


@pytest.fixture(scope="session")
def validated_variants(
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Variant]:
    """The same variants with a real report each, of two prompts. Copy before changing one."""
    folder = tmp_path_factory.mktemp("validated")
    copies = {
        name: open_variant(shutil.copytree(variant.root, folder / variant.name))
        for name, variant in tiny_variants.items()
    }
    settings = load_settings(tiny_checkpoint.root)
    settings = settings.model_copy(update={"prompts": settings.prompts[:2]})
    validate(list(copies.values()), tiny_checkpoint, settings=settings)
    return copies
