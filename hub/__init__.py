"""Publishing variants, downloading them again, and the rehearsal Hub to practise with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.hub.downloading import download
    from fluxconv.hub.pushing import PushedRepository, PushResult, push

__all__ = ["PushResult", "PushedRepository", "download", "push"]

__getattr__ = lazy(
    __name__,
    {
        "PushResult": "pushing",
        "PushedRepository": "pushing",
        "download": "downloading",
        "push": "pushing",
    },
)
