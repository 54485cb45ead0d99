"""Users, organisations and tokens: who is asking, and what they may do.

``accounts.json`` can be edited by hand while the server runs; it is read for every request. Its
tokens were made up by this server and open nothing anywhere else.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluxconv.hub.rehearsal.disk import Disk, read_json
from fluxconv.hub.rehearsal.errors import HubError, forbidden, invalid_token, unauthenticated

DEFAULT_USER = "rehearsal"
DEFAULT_ORGANIZATION = "rehearsal-org"
VISITOR = "visitor"

READ, WRITE, FINE_GRAINED = "read", "write", "fineGrained"
ADMIN = "admin"
_WRITERS = (WRITE, ADMIN)


@dataclass(frozen=True)
class Identity:
    """Who sent a request; ``user`` is None for somebody without a token.

    ``organizations`` are names with the user's role there; ``scopes`` are the namespaces that a
    fine-grained token may write to.
    """

    user: str | None = None
    role: str = "read"
    token_name: str = ""
    organizations: Mapping[str, str] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()

    @property
    def anonymous(self) -> bool:
        """No token was sent."""
        return self.user is None

    def belongs_to(self, namespace: str) -> bool:
        """Whether the namespace is the user's own or one of its organisations."""
        return namespace == self.user or namespace in self.organizations

    def may_write(self, namespace: str) -> bool:
        """Whether both the user and the token may write there."""
        by_user = namespace == self.user or self.organizations.get(namespace) in _WRITERS
        return by_user and (
            self.role == WRITE or (self.role == FINE_GRAINED and namespace in self.scopes)
        )

    def require_user(self) -> str:
        """The user's name, or 401."""
        if self.user is None:
            raise unauthenticated()
        return self.user

    def require_write(self, namespace: str, refusal: str) -> None:
        """Pass only those who may write to the namespace."""
        self.require_user()
        if not self.may_write(namespace):
            raise forbidden(refusal)

    def require_contributor(self, refusal: str) -> None:
        """Pass a token that may write anywhere: it may open a pull request."""
        self.require_user()
        if self.role not in (WRITE, FINE_GRAINED):
            raise forbidden(refusal)


class Accounts:
    """The file ``accounts.json``."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._path = disk.root / "accounts.json"

    def create(self, user: str = DEFAULT_USER, organizations: Sequence[str] = ()) -> None:
        """Make up the first accounts, unless there are some.

        The user gets a token that may write, one that may only read, and a fine-grained one for
        its own namespace; the second user exists so that access by somebody else can be
        rehearsed too. An organisation is ``NAME``, or ``NAME:ROLE`` for a member who is no admin.
        """
        if self._path.exists():
            return
        roles = dict(_member(text) for text in organizations or [DEFAULT_ORGANIZATION])
        tokens: list[dict[str, Any]] = [
            {"name": "write", "user": user, "role": WRITE},
            {"name": "read", "user": user, "role": READ},
            {"name": "fine-grained", "user": user, "role": FINE_GRAINED, "scopes": [user]},
            {"name": "visitor", "user": VISITOR, "role": WRITE},
        ]
        data = {
            "users": {
                user: {"fullname": user, "organizations": roles},
                VISITOR: {"fullname": "Somebody else", "organizations": {}},
            },
            "tokens": [{**each, "token": f"hf_{secrets.token_hex(17)}"} for each in tokens],
        }
        # Tokens: readable for the owner of the folder only.
        self._disk.write_json(self._path, data, mode=0o600)

    def tokens(self) -> dict[str, str]:
        """Every token by its name."""
        return {entry["name"]: entry["token"] for entry in self._read()["tokens"]}

    def owner(self) -> str:
        """The first user: whose server it is."""
        return str(self._read()["tokens"][0]["user"])

    def token_name(self, authorization: str) -> str | None:
        """What the token in an ``Authorization`` header is called, None if nobody owns it."""
        try:
            return self.identify(authorization).token_name
        except HubError:
            return None

    def identify(self, authorization: str | None) -> Identity:
        """Who sent this ``Authorization`` header; 401 for a token that nobody owns."""
        if authorization is None:
            return Identity()
        token = token_in(authorization)
        data = self._read()
        for entry in data["tokens"]:
            if hmac.compare_digest(entry["token"].encode(), token.encode()):
                user = data["users"].get(entry["user"], {})
                return Identity(
                    entry["user"],
                    entry["role"],
                    entry["name"],
                    _roles(user.get("organizations", {})),
                    tuple(entry.get("scopes", ())),
                )
        raise invalid_token()

    def describe(self, identity: Identity) -> dict[str, Any]:
        """The answer of ``/api/whoami-v2``."""
        name = identity.require_user()
        user = self._read()["users"].get(name, {})
        return {
            "type": "user",
            "id": account_id(name),
            "name": name,
            "fullname": user.get("fullname", name),
            "isPro": False,
            "canPay": False,
            "avatarUrl": "",
            "orgs": [
                {**describe_organization(org), "roleInOrg": role}
                for org, role in identity.organizations.items()
            ],
            "auth": {"type": "access_token", "accessToken": _describe_token(identity)},
        }

    def exists(self, namespace: str) -> bool:
        """Whether a user or an organisation has this name."""
        users = self._read()["users"]
        return namespace in users or any(
            namespace in user.get("organizations", ()) for user in users.values()
        )

    def is_organization(self, namespace: str) -> bool:
        """Whether the name is an organisation's."""
        return namespace not in self._read()["users"]

    def _read(self) -> dict[str, Any]:
        data = read_json(self._path)
        if not isinstance(data, dict):
            raise HubError(500, "accounts.json is missing or is not a JSON object")
        return data


def token_in(authorization: str) -> str:
    """The token of an ``Authorization`` header, empty if that is of another kind."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def account_id(name: str) -> str:
    """A stable 24-digit identifier for a user or an organisation."""
    return name.encode().hex()[:24].ljust(24, "0")


def describe_organization(name: str) -> dict[str, Any]:
    """One entry of ``orgs``."""
    return {
        "type": "org",
        "id": account_id(name),
        "name": name,
        "fullname": name,
        "avatarUrl": "",
        "isEnterprise": False,
    }


def _member(text: str) -> tuple[str, str]:
    name, _, role = text.partition(":")
    return name, role or ADMIN


def _roles(organizations: Any) -> dict[str, str]:
    # A plain list, as older folders have it, makes the user an admin everywhere.
    if isinstance(organizations, dict):
        return dict(organizations)
    return dict.fromkeys(organizations, ADMIN)


def _describe_token(identity: Identity) -> dict[str, Any]:
    token: dict[str, Any] = {"displayName": identity.token_name, "role": identity.role}
    if identity.role == FINE_GRAINED:
        scoped = [
            {
                "entity": {
                    "_id": account_id(name),
                    "type": "user" if name == identity.user else "org",
                    "name": name,
                },
                "permissions": ["repo.content.read", "repo.write", "collection.write"],
            }
            for name in identity.scopes
        ]
        token["fineGrained"] = {"canReadGatedRepos": True, "global": [], "scoped": scoped}
    return token
