"""Signing a browser in with a token, and choosing as whom to look."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.responses import RedirectResponse, Response

from fluxconv.hub.rehearsal.errors import HubError, forbidden
from fluxconv.hub.rehearsal.pages.visit import Visit


def sign_in(visit: Visit) -> Response:
    """``POST /-/sign-in``: a token of this Hub, typed in."""
    form = _form(visit)
    token = form.get("token", "").strip()
    try:
        visit.store.accounts.identify(f"Bearer {token}")
    except HubError:
        raise forbidden(
            "Nobody here has this token: take the one that the server printed"
        ) from None
    response = _back(form)
    visit.access.remember(response, visit.access.key(token))
    return response


def look_as(visit: Visit) -> Response:
    """``POST /-/look``: as oneself, as the public, or as nobody any more."""
    form, looker = _form(visit), visit.looker
    response = _back(form)
    match form.get("as"):
        case "owner" | "public" as whom if looker.signed_in is not None:
            visit.access.remember(response, looker.key, as_public=whom == "public")
        case "nobody":
            visit.access.forget(response)
    return response


def _form(visit: Visit) -> dict[str, str]:
    fields = parse_qs(visit.body.decode("utf-8", "replace"))
    return {name: values[0] for name, values in fields.items()}


def _back(form: dict[str, str]) -> Response:
    here = form.get("here", "/")
    # Nowhere but on this host: `//other.example` and `/\other.example` are other hosts.
    safe = here.startswith("/") and not here.startswith(("//", "/\\"))
    return RedirectResponse(here if safe else "/", status_code=303)
