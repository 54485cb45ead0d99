"""Who a token belongs to, and what it may write, as far as the Hub tells."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fluxconv.converters.errors import HubRefused
from fluxconv.hub.errors import NO_TOKEN, hub_errors
from fluxconv.hub.session import Session

_WRITE = "repo.write"


@dataclass(frozen=True)
class Account:
    """The user of a token, their role in each organisation, and the token's own role.

    `grants` are the namespaces and repositories that a fine-grained token may write to, `*` for
    all; None if it does not say so in a form that we know: the Hub decides then.
    """

    name: str
    groups: Mapping[str, str | None]
    role: str | None
    grants: frozenset[str] | None

    def require_writer(self, endpoint: str, namespace: str, repositories: Collection[str]) -> None:
        """Raise `HubRefused` if it is known that they may not write to these repositories."""
        if namespace != self.name and namespace not in self.groups:
            known = " or ".join([self.name, *self.groups])
            raise HubRefused(
                f"{namespace}: {self.name}, whose token it is, is no member of it; use {known}"
            )
        if self.groups.get(namespace) == "read":
            raise HubRefused(
                f"{namespace}: {self.name} may only read there; ask for the right to write"
            )
        if self.role == "fineGrained" and self.grants is not None:
            for repository in repositories:
                if not self.grants & {namespace, repository, "*"}:
                    raise HubRefused(
                        f"{repository}: the token of {self.name} was not made for it; add the "
                        f"right to write to {namespace} at {endpoint}/settings/tokens"
                    )


def require_writer(
    session: Session, namespace: str, repositories: Collection[str], *, foreign: bool
) -> str:
    """The user's name, if the token may write to the repositories of the namespace.

    `foreign` says that a pull request is wanted, for which any token will do that may write at all.
    Raises `HubRefused` without a token, with a read-only one, for a foreign namespace, or with a
    fine-grained token that was made for something else.
    """
    if session.token is None:
        raise HubRefused(f"{session.endpoint}: {NO_TOKEN}")
    with hub_errors(session.endpoint):
        user = read_account(session.api.whoami())
    if user.role == "read":
        raise HubRefused(
            f"{session.endpoint}: the token of {user.name} may only read; make one with write "
            f"access at {session.endpoint}/settings/tokens"
        )
    if not foreign:
        user.require_writer(session.endpoint, namespace, repositories)
    return user.name


def read_account(who: Mapping[str, Any]) -> Account:
    """What the Hub answers to "who am I"; raises `KeyError` or `TypeError` for anything else."""
    token = who.get("auth", {}).get("accessToken", {})
    groups = {str(group["name"]): group.get("roleInOrg") for group in who.get("orgs", [])}
    return Account(str(who["name"]), groups, token.get("role"), _grants(token.get("fineGrained")))


def _grants(fine: Any) -> frozenset[str] | None:
    try:
        writing = [each["entity"] for each in fine["scoped"] if _WRITE in each["permissions"]]
        if _WRITE in fine.get("global", ()):
            return frozenset({"*"})
        # An entity without a name is known by its number only.
        return frozenset(str(entity["name"]) for entity in writing)
    except (KeyError, TypeError, AttributeError):
        return None
