"""Publishing variants, downloading them again, and the rehearsal Hub to practise with."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxconv.hub.downloading import download
    from fluxconv.hub.pushing import PushedRepository, PushResult, push

__all__ = ["PushResult", "PushedRepository", "download", "push"]

_HOME = {
    "PushResult": "pushing",
    "PushedRepository": "pushing",
    "download": "downloading",
    "push": "pushing",
}


def __getattr__(name: str) -> Any:
    # Names are imported when first used, so that `fluxconv --help` stays quick.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
