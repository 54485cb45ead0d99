"""Who looks at the pages.

A browser cannot send the client's token with a picture, and the token should stand in no address
and no cookie. So each token has a key, made from it with the folder's secret: it opens the pages,
and changes nothing but that its owner asked at a gate. The cookie that holds it also says whether
its owner wants to see the pages as the public does.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

from fluxconv.hub.rehearsal.accounts import Accounts, Identity
from fluxconv.hub.rehearsal.disk import Disk

_PUBLIC = ".public"


@dataclass(frozen=True)
class Looker:
    """Somebody with a browser; `identity` is what they see the pages as."""

    identity: Identity
    signed_in: str | None = None
    key: str = ""

    @property
    def as_public(self) -> bool:
        """Whether somebody who is signed in wants to see what the public sees."""
        return self.signed_in is not None and self.identity.anonymous


class Access:
    """The keys of a folder."""

    def __init__(self, accounts: Accounts, secret: bytes) -> None:
        self._accounts = accounts
        self._secret = secret
        # Cookies do not tell ports apart: a name of its own for each folder.
        self._cookie = f"rehearsal-{self._sign('cookie')[:8]}"

    def key(self, token: str) -> str:
        """What opens the pages for the owner of a token."""
        return self._sign(f"page {token}")

    def looker(self, cookies: Mapping[str, str]) -> Looker:
        """Who sent these cookies; an outdated one is nobody's."""
        value = cookies.get(self._cookie, "")
        key = value.removesuffix(_PUBLIC)
        identity = self.owner(key)
        if identity is None:
            return Looker(Identity())
        shown = Identity() if value.endswith(_PUBLIC) else identity
        return Looker(shown, identity.user, key)

    def owner(self, key: str) -> Identity | None:
        """Whose key this is."""
        for token in self._accounts.tokens().values():
            if hmac.compare_digest(self.key(token).encode(), key.encode()):
                return self._accounts.identify(f"Bearer {token}")
        return None

    def remember(self, response: Response, key: str, *, as_public: bool = False) -> None:
        """Sign the browser in until it is closed."""
        value = key + _PUBLIC if as_public else key
        response.set_cookie(self._cookie, value, httponly=True, samesite="lax")

    def forget(self, response: Response) -> None:
        """Sign the browser out."""
        response.delete_cookie(self._cookie, httponly=True, samesite="lax")

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def owner_address(directory: Path, url: str) -> str:
    """The address that opens the pages of a folder's server as its owner: not for others."""
    accounts = Accounts(Disk(directory))
    access = Access(accounts, (directory / "secret").read_bytes())
    return f"{url}/?key={access.key(accounts.tokens()['write'])}"
