"""Users, organisations and tokens: who is asking, and what they may do.

``accounts.json`` can be edited by hand while the server runs; it is read for every request. Its
tokens were made up by this server and open nothing anywhere else.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fluxconv.hub.rehearsal.disk import Disk, read_json
from fluxconv.hub.rehearsal.errors import HubError, forbidden, invalid_token, unauthenticated

DEFAULT_USER = "rehearsal"
DEFAULT_ORGANIZATION = "rehearsal-org"
VISITOR = "visitor"


@dataclass(frozen=True)
class Identity:
    """Who sent a request; ``user`` is None for somebody without a token."""

    user: str | None = None
    role: str = "read"
    token_name: str = ""
    organizations: tuple[str, ...] = field(default=())

    @property
    def anonymous(self) -> bool:
        """No token was sent."""
        return self.user is None

    def belongs_to(self, namespace: str) -> bool:
        """Whether the namespace is the user's own or one of its organisations."""
        return namespace == self.user or namespace in self.organizations

    def require_user(self) -> str:
        """The user's name, or 401."""
        if self.user is None:
            raise unauthenticated()
        return self.user

    def require_write(self, namespace: str, refusal: str) -> None:
        """Pass only a token with write role of a member of the namespace."""
        self.require_user()
        if self.role != "write" or not self.belongs_to(namespace):
            raise forbidden(refusal)


class Accounts:
    """The file ``accounts.json``."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._path = disk.root / "accounts.json"

    def create(self, user: str = DEFAULT_USER, organizations: Sequence[str] = ()) -> None:
        """Make up the first accounts, unless there are some.

        The user gets a token that may write and one that may only read; the second user exists
        so that access by somebody else can be rehearsed too.
        """
        if self._path.exists():
            return
        organizations = [*organizations] or [DEFAULT_ORGANIZATION]
        tokens = [(user, "write", "write"), (user, "read", "read"), (VISITOR, "write", "visitor")]
        data = {
            "users": {
                user: {"fullname": user, "organizations": organizations},
                VISITOR: {"fullname": "Somebody else", "organizations": []},
            },
            "tokens": [
                {"name": name, "user": owner, "role": role, "token": f"hf_{secrets.token_hex(17)}"}
                for owner, role, name in tokens
            ],
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
                organizations = tuple(user.get("organizations", ()))
                return Identity(entry["user"], entry["role"], entry["name"], organizations)
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
            "orgs": [describe_organization(org) for org in identity.organizations],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": identity.token_name, "role": identity.role},
            },
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
        "roleInOrg": "admin",
    }
