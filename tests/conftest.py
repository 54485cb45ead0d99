"""What the tests share: the tiny Flux that really draws, and its variants, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.backends import all_backends

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
