"""What goes into cards and onto the Hub: files, names, rights, and what stands there already."""

from __future__ import annotations

from collections.abc import Sequence

from fluxconv.cards.collection_text import collection_title
from fluxconv.cards.naming import is_hub_id
from fluxconv.converters.errors import HubUnreachable
from fluxconv.converters.visible import visible
from fluxconv.hub.account import require_writer
from fluxconv.hub.errors import NO_TOKEN
from fluxconv.hub.remote import read_repository
from fluxconv.hub.repositories import refuse_foreign, remote_variants
from fluxconv.hub.session import Session, bounded_client, open_session
from fluxconv.hub.signing import signer
from fluxconv.recipes.checked import CheckedVariant
from fluxconv.recipes.checks.findings import Findings
from fluxconv.recipes.checks.sources import HUB_TIMEOUT
from fluxconv.recipes.recipe import PublicationPart
from fluxconv.recipes.recipe_file import RecipeFile
from fluxconv.validators.blind_test import read_blind_test


def check_card(file: RecipeFile, found: Findings) -> None:
    """The files that cards are made with."""
    wanted = file.recipe.card
    for number, test in enumerate(wanted.blind_tests):
        with found.collecting(("card", "blind_tests", number)):
            read_blind_test(file.path(test))
    if wanted.sign is not None:
        with found.collecting(("card", "sign")):
            signer(file.path(wanted.sign))


def check_publication(
    file: RecipeFile, variants: Sequence[CheckedVariant], found: Findings, *, at_once: bool
) -> None:
    """Names that the Hub takes, the right to write there, and repositories that are ours. That
    there is no token is a problem if they are to be published `at_once`."""
    wanted = file.recipe.publication
    if wanted is None:
        return
    if wanted.collection is not None:
        with found.collecting(("publication", "collection")):
            collection_title(wanted.collection)
    at = ("publication", "namespace")
    if not is_hub_id(f"{wanted.namespace}/x"):
        said = f"'{visible(wanted.namespace)}' can be no user or organisation of the Hub"
        found.problem(at, said)
        return
    repositories = list(dict.fromkeys(each.repository for each in variants if each.repository))
    session = open_session(None, None, HUB_TIMEOUT)
    try:
        with bounded_client(session.timeout, home=session.endpoint):
            before = len(found.problems)
            with found.collecting(at):
                if session.token is not None or at_once:
                    require_writer(session, wanted.namespace, repositories, foreign=False)
                else:
                    found.remark(f"{NO_TOKEN}: rights on the Hub were not looked at")
            if session.token is None or len(found.problems) == before:
                _check_repositories(session, wanted, repositories, found)
    except HubUnreachable as error:
        found.remark(f"rights and names on the Hub were not looked at: {error}")


def _check_repositories(
    session: Session, wanted: PublicationPart, repositories: Sequence[str], found: Findings
) -> None:
    for name in repositories:
        with found.collecting(("publication",)):
            remote = read_repository(session, name)
            if remote is None:
                continue
            there = remote_variants(session, remote)
            if not wanted.replace:
                refuse_foreign(remote, there)
            if there:
                found.remark(f"{name}: is there already; what differs will be brought up to date")
