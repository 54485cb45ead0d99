"""Answering a long list page by page, with the address of the next page in a ``Link`` header."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.responses import JSONResponse

from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import bad_request
from fluxconv.hub.rehearsal.names import is_number

Item = TypeVar("Item")


def page(
    call: Call,
    items: Sequence[Item],
    describe: Callable[[Item], Any],
    *,
    size: int,
    maximum: int | None = None,
) -> JSONResponse:
    """One page of the list; only the items on it are described."""
    start = _whole_number(call, "cursor", 0)
    count = min(max(_whole_number(call, "limit", size), 1), maximum or size)
    headers = {"X-Total-Count": str(len(items))}
    end = start + count
    if end < len(items):
        following = call.request.url.include_query_params(cursor=end)
        headers["Link"] = f'<{following}>; rel="next"'
    return JSONResponse([describe(item) for item in items[start:end]], headers=headers)


def _whole_number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not is_number(text):
        raise bad_request(f'"{name}" must be a whole number')
    return int(text)


def asked(call: Call, name: str) -> bool:
    """Whether a yes-or-no parameter of the query says yes."""
    return call.query.get(name, "").lower() in ("1", "true")
