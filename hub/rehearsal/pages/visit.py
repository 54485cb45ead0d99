"""One request for a page: who looks, the API asked on their behalf, and the page they get."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from fluxconv.converters.visible import visible_path
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.pages import words
from fluxconv.hub.rehearsal.pages.access import Access, Looker
from fluxconv.hub.rehearsal.store import Store

#: Nothing runs, nothing is framed, nothing is asked of another host.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)


@dataclass
class Visit:
    """Somebody asks for a page."""

    store: Store
    request: Request
    body: bytes
    access: Access
    run: Callable[[], Mapping[str, Any]] | None = None

    @functools.cached_property
    def looker(self) -> Looker:
        """Who looks."""
        return self.access.looker(self.request.cookies)

    @property
    def host(self) -> str:
        """Our own name and port, as the browser has them."""
        return self.request.url.netloc

    @functools.cached_property
    def call(self) -> Call:
        """The request as the endpoints of the API see it, made by whoever looks."""
        return self._call(self.request)

    def ask(
        self,
        endpoint: Callable[[Call], Response],
        path: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> Any:
        """What an endpoint of the API answers to whoever looks; `path` fills in its address."""
        scope = {
            **self.request.scope,
            "path_params": path or {},
            "query_string": urlencode(query or {}).encode(),
        }
        answer = endpoint(self._call(Request(scope)))
        if not isinstance(answer, JSONResponse):
            raise TypeError(f"{endpoint.__name__} does not answer in JSON")
        return json.loads(bytes(answer.body))

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page from a template."""
        values = {
            "looker": self.looker,
            "here": self.request.scope["path"],
            "has_run": self.run is not None,
            **values,
        }
        text = _environment().get_template(f"{template}.html.jinja").render(values)
        headers = {
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            # Who looks may change with the next press of a button.
            "Cache-Control": "no-store",
        }
        return HTMLResponse(text, status, headers)

    def _call(self, request: Request) -> Call:
        call = Call(self.store, request, io.BytesIO())
        call.identity = self.looker.identity
        return call


def fragment(template: str, **values: Any) -> Markup:
    """A part of a page from a template."""
    return Markup(_environment().get_template(f"{template}.html.jinja").render(values))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "address": words.address,
        "day": words.day,
        "moment": words.moment,
        "size": words.size,
        "visible": visible_path,
    }
    environment.globals["plural"] = words.plural
    return environment
