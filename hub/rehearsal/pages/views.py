"""Every view by its name in the table of pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.responses import Response

from fluxconv.hub.rehearsal.pages import (
    contents,
    conversations,
    lists,
    repositories,
    runs,
    signing_in,
)
from fluxconv.hub.rehearsal.pages.visit import Visit

VIEWS: Mapping[str, Callable[[Visit], Response]] = {
    "index": lists.index,
    "account": lists.account,
    "collection": lists.collection,
    "repository": repositories.card,
    "files": repositories.files,
    "file": repositories.file,
    "commits": repositories.commits,
    "commit": repositories.commit,
    "conversations": conversations.conversations,
    "conversation": conversations.conversation,
    "ask_access": conversations.ask_access,
    "content": contents.content,
    "sign_in": signing_in.sign_in,
    "look_as": signing_in.look_as,
    "run": runs.run,
}
