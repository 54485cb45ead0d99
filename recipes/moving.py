"""Revisions that move: a release that was begun of one commit is not finished with another."""

from __future__ import annotations

import re

from fluxconv.converters.errors import SourceChanged
from fluxconv.recipes.checked import Checked, CheckedCheckpoint
from fluxconv.recipes.markers import Markers

_COMMIT = re.compile(r"[0-9a-f]{40}")


def known_commits(checked: Checked, markers: Markers) -> dict[str, str]:
    """The commits, by the checkpoints' names, that an earlier run of the release fetched."""
    found = {each.name: _fetched(each, markers) for each in checked.checkpoints}
    return {name: commit for name, commit in found.items() if commit is not None}


def refuse_moved(checked: Checked, markers: Markers) -> None:
    """Raise `SourceChanged`, naming all of them, if revisions mean other commits now than when the
    release was begun. One that the recipe gives as a commit cannot move, and may be changed."""
    moved = []
    for each in checked.checkpoints:
        before = _fetched(each, markers)
        pinned = _COMMIT.fullmatch(each.row.revision or "")
        if pinned or before is None or each.revision in (None, before):
            continue
        moved.append(
            f"{each.id}: {each.row.revision or 'its newest revision'} has moved from {before} to "
            f"{each.revision} since this release was begun; write one of the two as its "
            "`revision:`, the first to finish the release, the second to make it anew"
        )
    if moved:
        raise SourceChanged("\n".join(moved))


def _fetched(checkpoint: CheckedCheckpoint, markers: Markers) -> str | None:
    marker = markers.read(f"fetch.{checkpoint.name}")
    if marker is None or marker.result is None:
        return None
    commit: str | None = marker.result.get("revision")
    return commit
