"""Keeping tokens out of everything that is shown: by their form, and by the very text of ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_TOKEN = re.compile(
    r"(?:hf|api_org|hf_jwt|hf_oauth)_\w{6,}|eyJ[\w.-]{20,}|(?i:bearer)\s+[^\s\"']+"
    # What signs an address is as good as a token while it lasts.
    r"|(?i:(?<=[?&]signature=)|(?<=x-amz-signature=)|(?<=x-amz-security-token=))[^&\s\"']+"
)
_SHORTEST = 8
_ours: set[str] = set()


def remember(token: str | None) -> None:
    """From now on this text, too, is left out, whatever it looks like."""
    if token and len(token) >= _SHORTEST:
        _ours.add(token)


def redacted(text: str) -> str:
    """`text` without anything that is, or looks like, a token."""
    # The longest first: a shorter one may be how it begins.
    for token in sorted(_ours, key=len, reverse=True):
        text = text.replace(token, "(token)")
    return _TOKEN.sub("(token)", text)


class _Filter:
    """A text stream that passes on everything but tokens.

    It has no `buffer`: whoever writes bytes past it would write them unseen.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def redacting_output() -> Iterator[None]:
    """Within the block, nothing that Python prints holds a token."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Filter(out), _Filter(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
