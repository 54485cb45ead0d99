"""Talking to a Hub: which one, as whom, and never waiting for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fluxconv.converters.errors import HubRefused
from fluxconv.hub.errors import NO_TOKEN, hub_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Seconds for a connection, and for the next byte of an answer. The Hub may think about a commit
#: of many large files for a minute.
CONNECT_TIMEOUT = 15.0
ANSWER_TIMEOUT = 120.0
_ERROR = 40  # as in `logging`


@dataclass(frozen=True)
class Session:
    """One Hub, and the token sent to it."""

    endpoint: str
    token: str | None = field(repr=False)

    @cached_property
    def api(self) -> HfApi:
        """The client; always with this endpoint and this token, whatever the environment says."""
        from huggingface_hub import HfApi

        # False: without a token of ours, the client must not look for another.
        return HfApi(endpoint=self.endpoint, token=self.token or False)

    def require_writer(self, namespace: str) -> str:
        """The user's name, if the token may write to the namespace as far as it tells.

        Raises `HubRefused` without a token, with a read-only one, or for a foreign namespace.
        """
        if self.token is None:
            raise HubRefused(f"{self.endpoint}: {NO_TOKEN}")
        with hub_errors(self.endpoint):
            who: dict[str, Any] = self.api.whoami()
            name = str(who["name"])
            groups = [str(group["name"]) for group in who.get("orgs", [])]
            role = who.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise HubRefused(
                f"{self.endpoint}: the token of {name} may only read; make one with write access "
                f"at {self.endpoint}/settings/tokens"
            )
        # A fine-grained token does not say plainly what it may write: the Hub decides then.
        if namespace != name and namespace not in groups:
            raise HubRefused(
                f"{namespace}: {name} is not a member; use {' or '.join([name, *groups])}"
            )
        return name


def open_session(endpoint: str | None, token: str | None) -> Session:
    """The endpoint given, else that of HF_ENDPOINT, else the Hub; the token given, else the one
    that the Hub's own tools would use."""
    from huggingface_hub import constants, get_token

    found = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    return Session(found.rstrip("/"), token or get_token())


@contextmanager
def bounded_client() -> Iterator[None]:
    """Within the block, the Hub's client gives up on a silent server and draws no bars of its own.

    By default it waits for ever. What it was set to before is put back.
    """
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http, logging
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    # There is a public setter and no getter.
    before = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
    verbosity, bars = logging.get_verbosity(), not are_progress_bars_disabled()

    def factory() -> httpx2.Client:
        client: httpx2.Client = before()
        client.timeout = httpx2.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT)
        return client

    set_client_factory(factory)
    # Its warnings name signed addresses, and its errors reach the user through ours.
    logging.set_verbosity(_ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        set_client_factory(before)
        logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()
