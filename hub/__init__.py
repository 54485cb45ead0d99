"""Publishing variants, downloading them again, and the rehearsal Hub to practise with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.hub.choosing import Fit
    from fluxconv.hub.collection import PublishedCollection
    from fluxconv.hub.downloading import download
    from fluxconv.hub.pushing import push
    from fluxconv.hub.results import PushedFile, PushedRepository, PushResult, Step
    from fluxconv.hub.signing import BadSignature, sign
    from fluxconv.hub.sources import open_source
    from fluxconv.hub.verifying import Verification, verify_folder, verify_published

__all__ = [
    "BadSignature",
    "Fit",
    "PublishedCollection",
    "PushResult",
    "PushedFile",
    "PushedRepository",
    "Step",
    "Verification",
    "download",
    "open_source",
    "push",
    "sign",
    "verify_folder",
    "verify_published",
]

__getattr__ = lazy(
    __name__,
    {
        "Fit": "choosing",
        "PublishedCollection": "collection",
        "download": "downloading",
        "push": "pushing",
        "PushResult": "results",
        "PushedFile": "results",
        "PushedRepository": "results",
        "Step": "results",
        "BadSignature": "signing",
        "sign": "signing",
        "open_source": "sources",
        "Verification": "verifying",
        "verify_folder": "verifying",
        "verify_published": "verifying",
    },
)
