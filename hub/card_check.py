"""The Hub's own word on a card's front matter, where it can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fluxconv.converters.errors import BadInput, HubError
from fluxconv.hub.errors import clean, hub_errors
from fluxconv.hub.retrying import DEFAULT_TIMEOUT
from fluxconv.hub.session import Session, bounded_client, open_session


def card_problems(session: Session, text: str) -> tuple[str, ...]:
    """What the Hub's `validate-yaml` says against the README `text`, one sentence each.

    Raises `HubUnreachable`, `HubRefused` or `HubError`.
    """
    from huggingface_hub import get_session, hf_raise_for_status

    where = f"{session.endpoint}/api/validate-yaml"
    with hub_errors(where):
        answer = get_session().post(
            where, json={"content": text, "repoType": "model"}, headers=session.headers()
        )
        if answer.status_code != 400:  # that is how it says that there are errors
            hf_raise_for_status(answer)
        said = answer.json()
    errors = said.get("errors") if isinstance(said, Mapping) else None
    if not isinstance(errors, list):
        raise HubError(f"{where}: the answer is not the Hub's; check HF_ENDPOINT")
    return tuple(
        clean(str(each["message"] if isinstance(each, Mapping) and "message" in each else each))
        for each in errors
    )


def require_good_cards(
    readmes: Mapping[Path, str],
    *,
    token: str | None = None,
    endpoint: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Raise `BadInput` naming what the Hub finds wrong in the front matter of these READMEs."""
    session = open_session(endpoint, token, timeout)
    with bounded_client(timeout, home=session.endpoint):
        for place, text in readmes.items():
            if problems := card_problems(session, text):
                raise BadInput(f"{place}: the Hub would refuse it: {'; '.join(problems)}")
