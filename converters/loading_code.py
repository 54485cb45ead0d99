"""The lines that load a variant with public libraries alone: a card shows them, validation runs
them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluxconv.converters.errors import CheckFailed
from fluxconv.converters.variant import Variant


def loading_code(variant: Variant, place: str) -> str:
    """Python that leaves the loaded pipeline in `pipe`; `place` is a Hub repository or a folder."""
    files = {name: component.files[0] for name, component in variant.manifest.components.items()}
    return variant.backend.snippet(place, files)


def open_by_code(variant: Variant) -> Any:
    """The variant as the `FluxPipeline` that these lines give, on the device they leave it on.

    Raises `CheckFailed` with what the libraries say. Ask `Backend.cannot_run` first.
    """
    space: dict[str, Any] = {}
    try:
        with _nothing_is_downloaded(variant.root):
            exec(compile(loading_code(variant, str(variant.root)), "card", "exec"), space)
    except Exception as error:  # whatever a library raises, a reader of the card would see
        first = f"{type(error).__name__}: {error}".strip().split("\n")[0]
        raise CheckFailed(
            f"{variant.name}: the code of its card does not load it: {first}"
        ) from error
    return space["pipe"]


@contextmanager
def _nothing_is_downloaded(folder: Path) -> Iterator[None]:
    """Have the Hub's client answer with `folder`, which is what it would download."""
    import huggingface_hub

    download = huggingface_hub.snapshot_download
    huggingface_hub.snapshot_download = lambda *_args, **_options: str(folder)  # type: ignore[assignment]
    try:
        yield
    finally:
        huggingface_hub.snapshot_download = download
