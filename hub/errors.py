"""What the Hub's client raises, as one sentence for the user, without a token in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fluxconv.converters.errors import FluxconvError, HubError, HubRefused, HubUnreachable

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_TOKEN = re.compile(r"(?:hf|api_org|hf_jwt)_\w{6,}|eyJ[\w.-]{20,}|(?i:bearer)\s+\S+")
_LONGEST = 200

#: What each refusal means, and the next thing to do.
_REFUSALS = {
    400: "the Hub did not accept the request",
    401: "the Hub did not accept the token; log in again with `hf auth login`, or set HF_TOKEN",
    402: "the account has reached its quota; make room, or upgrade it",
    403: "the token may not do this; use one with write access to this namespace",
    404: "not found, or private and not visible with this token",
    409: "something of that name exists already",
    410: "is gone",
    412: "somebody else changed it meanwhile; run the same command again",
    413: "a file is too large for the Hub",
}


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn errors of the Hub's client into `HubUnreachable`, `HubRefused` or `HubError`.

    `what` is the repository, collection or address that the message begins with. The original
    error is dropped: its text may hold signed addresses or what a server echoed of the request.
    """
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except FluxconvError:
        raise
    except HfHubHTTPError as error:
        raise _refusal(what, error) from None
    except OfflineModeIsEnabled:
        raise HubUnreachable(f"{what}: HF_HUB_OFFLINE is set; unset it to reach the Hub") from None
    except LocalTokenNotFoundError:
        raise HubRefused(f"{what}: {NO_TOKEN}") from None
    except HFValidationError as error:
        raise HubRefused(f"{what}: {_clean(str(error))}") from None
    except httpx2.TimeoutException:
        raise HubUnreachable(f"{what}: the Hub did not answer in time; try again later") from None
    except (httpx2.ConnectError, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
        raise HubUnreachable(
            f"{what}: the Hub cannot be reached ({_clean(str(error))}); check the network and "
            "HF_ENDPOINT"
        ) from None
    except httpx2.HTTPError as error:
        raise HubUnreachable(
            f"{what}: the Hub broke off the connection ({_clean(str(error))}); run the same "
            "command again"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        # The client does not check what it parses.
        raise HubError(
            f"{what}: the server's answer is not the Hub's ({type(error).__name__}); check "
            "HF_ENDPOINT"
        ) from None


NO_TOKEN = "no token found; log in with `hf auth login`, or set HF_TOKEN"


def redacted(text: str) -> str:
    """`text` without anything that looks like a token."""
    return _TOKEN.sub("(token)", text)


def _refusal(what: str, error: HfHubHTTPError) -> HubError:
    status = error.response.status_code
    said = _clean(error.server_message or error.response.headers.get("X-Error-Message") or "")
    reason = f" (the Hub says: {said})" if said else ""
    if status == 429:
        return HubError(f"{what}: the Hub asks to slow down; run the same command again later")
    if status >= 500:
        return HubError(
            f"{what}: the Hub failed with status {status}{reason}; run the same command again later"
        )
    meaning = _REFUSALS.get(status, f"the Hub refused with status {status}")
    return HubRefused(f"{what}: {meaning}{reason}")


def _clean(text: str) -> str:
    text = " ".join(redacted(text).split())
    text = "".join(character for character in text if character.isprintable())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
