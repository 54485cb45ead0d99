"""Talking to a Hub: which one, as whom, and never waiting for ever."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fluxconv.converters.errors import UsageError
from fluxconv.hub.redaction import remember
from fluxconv.hub.retrying import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_ERROR = 40  # as in `logging`


@dataclass(frozen=True)
class Session:
    """One Hub, the token sent to it, and the seconds to wait for it while nothing moves."""

    endpoint: str
    token: str | None = field(repr=False)
    timeout: float = DEFAULT_TIMEOUT

    @cached_property
    def api(self) -> HfApi:
        """The client; always with this endpoint and this token, whatever the environment says."""
        from huggingface_hub import HfApi

        # False: without a token of ours, the client must not look for another.
        return HfApi(endpoint=self.endpoint, token=self.token or False)

    def headers(self) -> dict[str, str]:
        """Those of a request that the client has no method for."""
        from huggingface_hub.utils._headers import build_hf_headers

        return dict(build_hf_headers(token=self.token or False))


def default_endpoint() -> str:
    """The address in HF_ENDPOINT, else that of the Hub."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")


def open_session(
    endpoint: str | None, token: str | None, timeout: float = DEFAULT_TIMEOUT
) -> Session:
    """The endpoint given, else that of HF_ENDPOINT, else the Hub; the token given, else the one
    that the Hub's own tools would use.

    Raises `UsageError` for a token that is none, and where it would travel unencrypted.
    """
    from huggingface_hub import get_token

    found = endpoint or default_endpoint()
    token = token or get_token()
    # Whatever happens from here on, it is not printed.
    remember(token)
    if token is not None:
        _refuse_careless(found, token)
    return Session(found.rstrip("/"), token, timeout)


def _refuse_careless(endpoint: str, token: str) -> None:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError("the token holds characters that no token has; look at HF_TOKEN")
    address = urlsplit(endpoint)
    if address.scheme == "http" and not is_loopback(address.hostname or ""):
        raise UsageError(
            f"{endpoint}: the token would go there in clear text; give an address with https://"
        )


def is_loopback(host: str) -> bool:
    """Whether what is sent to `host` stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@contextmanager
def bounded_client(
    timeout: float = DEFAULT_TIMEOUT,
    moved: Callable[[int], object] | None = None,
    *,
    home: str | None = None,
) -> Iterator[None]:
    """Within the block, the Hub's client waits no longer than `timeout` seconds while nothing
    moves, and draws no bars of its own. `moved` hears how many bytes of each request have gone.
    With `home`, the address of a Hub, no token goes to any other.

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

    from fluxconv.hub.transport import Bounded

    # There is a public setter and no getter.
    before = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
    verbosity, bars = logging.get_verbosity(), not are_progress_bars_disabled()

    def factory() -> httpx2.Client:
        client: httpx2.Client = before()
        # Beneath the client, so that its redirects and the proxies of the environment pass here.
        client._transport = Bounded(client._transport, timeout, moved, home)
        client._mounts = {
            pattern: inner and Bounded(inner, timeout, moved, home)
            for pattern, inner in client._mounts.items()
        }
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
