"""Publishing variants, downloading them again, and the rehearsal Hub to practise with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.hub.downloading import download
    from fluxconv.hub.pushing import push
    from fluxconv.hub.results import PushedFile, PushedRepository, PushResult, Step

__all__ = ["PushResult", "PushedFile", "PushedRepository", "Step", "download", "push"]

__getattr__ = lazy(
    __name__,
    {
        "PushResult": "results",
        "PushedFile": "results",
        "PushedRepository": "results",
        "Step": "results",
        "download": "downloading",
        "push": "pushing",
    },
)
