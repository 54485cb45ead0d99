"""A run of a recipe, from the markers that it leaves: for the folder's owner, and nobody else."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from fluxconv.converters.errors import BadInput
from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.pages.visit import Visit

_EVERY = 2  # seconds between two looks at a run that goes on
_ORDER = ("done", "running", "waiting", "failed", "left out")


def run(visit: Visit) -> Response:
    """``GET /-/run``: the nodes of the run with their times and peak memory."""
    look = visit.run
    if look is None or visit.looker.signed_in is None or visit.looker.as_public:
        raise HubError(404, "No run is shown here, or only to its owner: sign in above")
    try:
        found = look()
    except BadInput as error:
        raise HubError(404, str(error)) from None
    nodes = list(found["nodes"])
    counts = [(state, sum(node["state"] == state for node in nodes)) for state in _ORDER]
    return visit.page(
        "run",
        run=found,
        began=_time(found["started"]),
        counts=[(state, count) for state, count in counts if count],
        groups=_groups(nodes),
        again=_EVERY if found["state"] == "running" else None,
    )


def _groups(nodes: list[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The nodes by what they are about: a checkpoint, a variant, the release."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        found.setdefault(node["id"].partition(".")[2], []).append(node)
    return list(found.items())


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
