"""What somebody wrote around our part of a card, here and on the Hub: none of it is lost.

After a push both places have the same words. Where they differ, one has changed since: the README
at the last seal tells which. A change on the Hub is taken over, a change here goes up, and where
both changed, nobody but their author can say what to do.
"""

from __future__ import annotations

from typing import Any

from fluxconv.cards.metadata import OWNED
from fluxconv.cards.readme import Readme, parse
from fluxconv.cards.writing import README, local_readme
from fluxconv.converters.errors import HubRefused
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import Variant
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.finishing import SEAL
from fluxconv.hub.remote import RemoteRepository, read_commit, read_text
from fluxconv.hub.session import Session

#: What every push writes itself.
_OURS = {*OWNED, "tags"}


def existing_readme(
    session: Session, remote: RemoteRepository | None, variant: Variant, progress: Progress
) -> Readme:
    """The README whose words are to stand around our part.

    Raises `HubRefused` if it was changed both here and on the Hub since the last push, `BadInput`
    if one of them cannot be taken apart.
    """
    here = local_readme(variant)
    there = _read(session, remote)
    if remote is None or there is None or not there.is_written_by_hand:
        return here
    if not here.is_written_by_hand:
        return there
    if _words(here) == _words(there) or _holds(here, there):
        return here
    base = _read(session, _sealed(session, remote))
    if base is None or _words(base) == _words(there):
        return here
    if _words(base) != _words(here):
        raise HubRefused(
            f"{remote.name}/{README}: was edited on the Hub, and {variant.root / README} here; "
            "copy what stands there into the one here, and run the same command again"
        )
    progress.note(f"{remote.name}/{README}: was edited on the Hub; what stands there is kept")
    return there


def _read(session: Session, remote: RemoteRepository | None) -> Readme | None:
    if remote is None or README not in remote.files:
        return None
    text = read_text(session, remote, README).decode("utf-8", "replace")
    return parse(text, f"{remote.name}/{README}")


def _words(readme: Readme) -> tuple[str, str, dict[str, Any]]:
    own = {key: value for key, value in readme.metadata.items() if key not in _OURS}
    return readme.before.strip(), readme.after.strip(), own


def _holds(here: Readme, there: Readme) -> bool:
    """Whether everything that is written there is written here, too."""
    ours, theirs = _words(here), _words(there)
    return theirs[0] in ours[0] and theirs[1] in ours[1] and theirs[2].items() <= ours[2].items()


def _sealed(session: Session, remote: RemoteRepository) -> RemoteRepository | None:
    """The repository as the last finished push left it, None if there was none."""
    with hub_errors(remote.name):
        refs = session.api.list_repo_refs(remote.name)
        sealed = {tag.target_commit for tag in refs.tags if tag.name.startswith(SEAL)}
        if remote.commit in sealed:
            return remote
        history = session.api.list_repo_commits(remote.name)
    last = next((each.commit_id for each in history if each.commit_id in sealed), None)
    return read_commit(session, remote.name, last) if last else None
