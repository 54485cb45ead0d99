"""What the Hub's client raises, as one sentence for the user, without a token in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fluxconv.converters.errors import FluxconvError, HubError, HubRefused, HubUnreachable
from fluxconv.hub.redaction import redacted

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

    from fluxconv.hub.transport import Unanswered

_LONGEST = 200

#: What each refusal means, and the next thing to do.
_REFUSALS = {
    400: "the Hub did not accept the request",
    401: "the Hub did not accept the token, or it has expired; log in again with `hf auth login`, "
    "or set HF_TOKEN, and run the same command again",
    402: "the account has reached its quota; make room, or upgrade it",
    403: "the token may not do this; use one with write access to this namespace",
    404: "not found, or private and not visible with this token",
    409: "something of that name exists already",
    410: "is gone",
    412: "somebody else changed it meanwhile; run the same command again",
    413: "a file is too large for the Hub",
}


class Unclear(HubError):
    """No good answer came to a request that changes something: it may have been carried out."""


class Moved(HubRefused):
    """The Hub has a newer state than the one that a change was made for."""


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

    from fluxconv.hub.transport import Unanswered

    try:
        yield
    except FluxconvError:
        raise
    except Unanswered as error:
        raise _unanswered(what, error) from None
    except HfHubHTTPError as error:
        raise _refusal(what, error) from None
    except OfflineModeIsEnabled:
        raise HubUnreachable(f"{what}: HF_HUB_OFFLINE is set; unset it to reach the Hub") from None
    except LocalTokenNotFoundError:
        raise HubRefused(f"{what}: {NO_TOKEN}") from None
    except HFValidationError as error:
        raise HubRefused(f"{what}: {clean(str(error))}") from None
    except httpx2.TimeoutException:
        raise HubUnreachable(f"{what}: the Hub did not answer in time; try again later") from None
    except (httpx2.ConnectError, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
        raise HubUnreachable(
            f"{what}: the Hub cannot be reached ({clean(str(error))}); check the network and "
            "HF_ENDPOINT"
        ) from None
    except httpx2.HTTPError as error:
        raise HubUnreachable(
            f"{what}: the Hub broke off the connection ({clean(str(error))}); run the same "
            "command again"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # The client does not check what it parses.
        raise HubError(
            f"{what}: the server's answer is not the Hub's ({type(error).__name__}); check "
            "HF_ENDPOINT"
        ) from None


NO_TOKEN = "no token found; log in with `hf auth login`, or set HF_TOKEN"


def _unanswered(what: str, error: Unanswered) -> HubError:
    kind = Unclear if error.is_unclear else HubError if error.status else HubUnreachable
    return kind(f"{what}: {clean(error.reason)}; {error.advice}")


def _refusal(what: str, error: HfHubHTTPError) -> HubError:
    status = error.response.status_code
    said = clean(error.server_message or error.response.headers.get("X-Error-Message") or "")
    reason = f" (the Hub says: {said})" if said else ""
    if status == 412:
        return Moved(f"{what}: {_REFUSALS[status]}")
    if status >= 500:
        return HubError(
            f"{what}: the Hub failed with status {status}{reason}; run the same command again later"
        )
    return HubRefused(f"{what}: {meaning_of(status)}{reason}")


def meaning_of(status: int) -> str:
    """What a refusal of that status means, and the next thing to do."""
    return _REFUSALS.get(status, f"the Hub refused with status {status}")


def clean(text: str) -> str:
    """Words of a server or a library as part of our sentence: one line, short, without a token."""
    text = " ".join(redacted(text).split())
    text = "".join(character for character in text if character.isprintable())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
