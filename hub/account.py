"""Who a token belongs to, and what it may write, as far as the Hub tells."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fluxconv.converters.errors import HubRefused
from fluxconv.hub.errors import NO_TOKEN, hub_errors
from fluxconv.hub.session import Session

_WRITE = "repo.write"


def require_writer(
    session: Session, namespace: str, repositories: Collection[str] = (), *, foreign: bool = False
) -> str:
    """The user's name, if the token may write to the repositories of the namespace.

    `foreign` says that a pull request is wanted, for which anybody's token will do. Raises
    `HubRefused` without a token, with a read-only one, for a foreign namespace, or with a
    fine-grained token that was made for something else.
    """
    if session.token is None:
        raise HubRefused(f"{session.endpoint}: {NO_TOKEN}")
    with hub_errors(session.endpoint):
        who: dict[str, Any] = session.api.whoami()
        name = str(who["name"])
        groups = {str(group["name"]): group.get("roleInOrg") for group in who.get("orgs", [])}
        token = who.get("auth", {}).get("accessToken", {})
        role = token.get("role")
        grants = _grants(token.get("fineGrained"))
    if role == "read":
        raise HubRefused(
            f"{session.endpoint}: the token of {name} may only read; make one with write access "
            f"at {session.endpoint}/settings/tokens"
        )
    if foreign:
        return name
    if namespace != name and namespace not in groups:
        raise HubRefused(f"{namespace}: {name} is not a member; use {' or '.join([name, *groups])}")
    if groups.get(namespace) == "read":
        raise HubRefused(f"{namespace}: {name} may only read there; ask for the right to write")
    if role == "fineGrained" and grants is not None:
        for repository in repositories:
            if not grants & {namespace, repository, "*"}:
                raise HubRefused(
                    f"{repository}: the token of {name} was not made for it; add the permission "
                    f"to write to {namespace} at {session.endpoint}/settings/tokens"
                )
    return name


def _grants(fine: Any) -> set[str] | None:
    """The namespaces and repositories that a fine-grained token may write to, `*` for all; None if
    it does not say in the form that we know: the Hub decides then."""
    try:
        found = {
            str(each["entity"]["name"])
            for each in fine["scoped"]
            if _WRITE in each["permissions"] and each["entity"].get("name")
        }
        # An entity without a name is known by its number only.
        nameless = any(
            _WRITE in e["permissions"] and not e["entity"].get("name") for e in fine["scoped"]
        )
        return None if nameless else found | ({"*"} if _WRITE in fine.get("global", ()) else set())
    except (KeyError, TypeError, AttributeError):
        return None
