"""Errors in the Hub's own form, so that the client raises its own exceptions.

The client looks at three things: the status, the header ``X-Error-Code`` (which chooses between
``RepositoryNotFoundError``, ``RevisionNotFoundError``, ``EntryNotFoundError`` and
``GatedRepoError``) and the sentence, in ``X-Error-Message`` and in the JSON body's ``error``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class HubError(Exception):
    """A refusal that the client is meant to see."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The error as the Hub would send it."""
        headers = {**self.headers, "X-Error-Message": _header_safe(self.message)}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return JSONResponse(
            {"error": self.message, **self.extra}, status_code=self.status, headers=headers
        )


def bad_request(message: str) -> HubError:
    """400: the request itself is wrong."""
    return HubError(400, message)


def unauthenticated() -> HubError:
    """401: the endpoint needs a token and none came."""
    return HubError(401, "Invalid username or password.")


def invalid_token() -> HubError:
    """401: a token came and nobody owns it.

    The client tells this sentence apart from "no such repository", so it is verbatim.
    """
    return HubError(401, "Invalid credentials in Authorization header")


def forbidden(message: str) -> HubError:
    """403: known, but not allowed."""
    return HubError(403, message)


def repo_not_found(*, anonymous: bool) -> HubError:
    """The repository is missing, or private and not yours: the Hub does not say which.

    Without a token the Hub answers 401, because logging in might reveal the repository. The real
    Hub sends no error code then and the client recognises the URL instead, but only behind
    ``https``; on loopback the code must say it.
    """
    if anonymous:
        return HubError(401, "Invalid username or password.", code="RepoNotFound")
    return HubError(404, "Repository not found", code="RepoNotFound")


def gated(repo_id: str, *, anonymous: bool, waiting: bool) -> HubError:
    """The repository is visible, its files are not."""
    message = f"Access to model {repo_id} is restricted and you are not in the authorized list."
    if anonymous:
        message = f"Access to model {repo_id} is restricted. You must be authenticated."
    elif waiting:
        message = (
            f"Your request to access model {repo_id} is awaiting a review from the repo authors."
        )
    return HubError(401 if anonymous else 403, message, code="GatedRepo")


def revision_not_found(revision: str) -> HubError:
    """404: the repository exists, the branch, tag or commit does not."""
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(message: str, commit: str | None = None) -> HubError:
    """404: the revision exists, the file does not.

    With the commit in the answer, the client remembers the absence for that commit.
    """
    headers = {} if commit is None else {"X-Repo-Commit": commit}
    return HubError(404, message, code="EntryNotFound", headers=headers)


def conflict(message: str, **extra: Any) -> HubError:
    """409: it exists already; ``extra`` says where."""
    return HubError(409, message, extra=extra)


def _header_safe(message: str) -> str:
    # What the client sent may be quoted in the message; a header takes printable ASCII only.
    return "".join(c if " " <= c <= "~" else "?" for c in " ".join(message.split()))[:1000]
