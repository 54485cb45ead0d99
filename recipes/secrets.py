"""Secrets have no place in a recipe: it is a file that people pass on and commit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fluxconv.hub.redaction import remember
from fluxconv.recipes.problems import Problem

_KINDS = (
    (
        # What any of the Hub's tokens looks like, and a JSON web token.
        re.compile(r"\b(?:hf|api_org|hf_jwt|hf_oauth)_\w{16,}|\beyJ[\w.-]{20,}"),
        "holds a token; remove it (and revoke it, if anybody else may have seen it): the token is "
        "taken from HF_TOKEN, or from `hf auth login`",
    ),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
        "holds a private key; keep it in a file of its own, and give its path as `sign:`",
    ),
    (
        re.compile(r"\w://[^/\s@:]*:[^/\s@]+@"),
        "holds a password in an address; remove it: storage takes its credentials from the "
        "environment, and so does the Hub",
    ),
)


def secrets_in(text: str) -> Iterator[Problem]:
    """A problem for each line of the file, comments included, that holds a secret. What it is, is
    not repeated."""
    own = os.environ.get("HF_TOKEN", "").strip()
    remember(own)
    for number, line in enumerate(text.split("\n"), 1):
        for pattern, sentence in _KINDS:
            if pattern.search(line) or (pattern is _KINDS[0][0] and own and own in line):
                yield Problem(sentence, line=number)
