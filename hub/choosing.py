"""The best of several published variants for somebody's memory, by their reports."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxconv.converters.errors import FluxconvError, HubError, NotEnoughMemory
from fluxconv.hub.outline import outline
from fluxconv.hub.remote import RemoteRepository
from fluxconv.hub.repositories import RemoteVariant
from fluxconv.hub.session import Session
from fluxconv.validators.candidates import Device, from_variant
from fluxconv.validators.recommendation import Prefer, Recommendation, recommend


@dataclass(frozen=True)
class Fit:
    """What a variant has to fit: so many bytes of a device's memory (None: any number), and what
    counts most among those that do."""

    memory: int | None
    device: Device = "cuda"
    prefer: Prefer = "quality"


def choose(
    session: Session,
    published: Sequence[tuple[RemoteRepository, RemoteVariant]],
    fit: Fit,
) -> tuple[int, Recommendation]:
    """Which of the published variants to take, and all that speaks for and against each.

    Only a few megabytes of each are fetched. Raises `NotEnoughMemory` saying what is lacking if
    none fits, and what `outline` raises.
    """
    with tempfile.TemporaryDirectory(prefix="fluxconv-") as folder:
        candidates = []
        for index, (repository, variant) in enumerate(published):
            opened = outline(session, repository, variant, Path(folder) / str(index), weights=False)
            try:
                candidates.append(from_variant(opened, fit.device))
            except FluxconvError:
                raise
            except (KeyError, TypeError, ValueError, ArithmeticError) as error:
                # Somebody else wrote these configs.
                raise HubError(
                    f"{repository.name}: nothing can be said of the memory that "
                    f"{variant.manifest.name} takes: its configs are not what they should be"
                ) from error
        found = recommend(candidates, fit.device, fit.memory, fit.prefer)
    if not found.suggestions:
        raise NotEnoughMemory(found.advice)
    return candidates.index(found.suggestions[0].candidate), found
