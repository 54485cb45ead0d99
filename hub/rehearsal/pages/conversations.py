"""Pages of what others say to a repository: discussions, and pull requests, which are some."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from starlette.responses import RedirectResponse, Response

from fluxconv.hub.rehearsal import access, discussions
from fluxconv.hub.rehearsal.pages import highlighting
from fluxconv.hub.rehearsal.pages.markdown import render
from fluxconv.hub.rehearsal.pages.opened import Opened
from fluxconv.hub.rehearsal.pages.visit import Visit
from fluxconv.hub.rehearsal.pages.words import address


def conversations(visit: Visit) -> Response:
    """``GET /NS/NAME/discussions``."""
    return visit.page("conversations", opened=Opened.at(visit))


def conversation(visit: Visit) -> Response:
    """``GET /NS/NAME/discussions/N``: what was said and done, and what would change."""
    opened = Opened.at(visit)
    path = {name: visit.call.parameter(name) for name in ("namespace", "name", "number")}
    # What a file becomes is the file's content: for those who are let through the gate.
    found = visit.ask(discussions.show, path, {"diff": "1"} if opened.readable else {})
    diff = found.get("diff", "")
    return visit.page(
        "conversation",
        opened=opened,
        found=found,
        said=[_said(opened, event) for event in found["events"]],
        diff=Markup(highlighting.highlighted(diff, "diff")) or diff if diff else "",
    )


def ask_access(visit: Visit) -> Response:
    """``POST /-/ask/NS/NAME``: the button on the gate."""
    path = {name: visit.call.parameter(name) for name in ("namespace", "name")}
    visit.ask(access.ask, path)
    return RedirectResponse(address("", *path.values()), status_code=303)


def _said(opened: Opened, event: dict[str, Any]) -> Markup:
    """The text of a comment; empty for anything else that happened."""
    text = event["data"]["latest"]["raw"] if event["type"] == "comment" else ""
    return render(text, opened.place()).html
