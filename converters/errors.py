"""Everything that can go wrong, one class each, with the exit code of the command beside it.

The message of an error is what the user reads: what is wrong, where, and the next thing to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any


class FluxconvError(Exception):
    """Base of every error that fluxconv raises on purpose; `str(error)` is fit for a user.

    After one that is `resumable`, the same command goes on where it was stopped. `details` is what
    programs are told beside the sentence, plain data.
    """

    exit_code = 1
    resumable = False
    details: Mapping[str, Any] = MappingProxyType({})


class CheckFailed(FluxconvError):
    """A variant did not pass its checks."""

    exit_code = 1


class UsageError(FluxconvError):
    """The command was given words it does not know."""

    exit_code = 2


class UnknownBackend(UsageError):
    """No backend of that name is registered."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown backend '{name}'{nearest(name, known)}")


class BadInput(FluxconvError):
    """A file or folder that was given cannot be used."""

    exit_code = 3


class CheckpointNotFound(BadInput):
    """The path does not exist."""


class NotACheckpoint(BadInput):
    """The path exists but holds no Flux checkpoint."""


class MalformedFile(BadInput):
    """A file breaks the rules of its own format."""


class BadWeight(BadInput):
    """A weight holds NaN or infinity."""


class OutputExists(BadInput):
    """What would be written is there already."""


class DiskFull(BadInput):
    """The disk, or a limit on it, has no room for what is to be written."""

    resumable = True


class SourceChanged(BadInput):
    """A source file changed while it was being read, or since the variant was made."""


class NotAVariant(BadInput):
    """A folder has no valid manifest, or its files do not match it."""


class MissingLicence(BadInput):
    """The source states no licence that fluxconv knows how to pass on."""


class MissingRequirement(FluxconvError):
    """A library or device that the work needs is not here."""

    exit_code = 4


class NotEnoughMemory(MissingRequirement):
    """The work would take more memory than is free."""


class HubError(FluxconvError):
    """The Hub refused, failed, or did not answer."""

    exit_code = 5
    resumable = True


class HubUnreachable(HubError):
    """No answer from the Hub."""


class HubRefused(HubError):
    """The Hub answered no: bad token, missing rights, foreign content."""


class WrongContent(HubError):
    """What the Hub has is not what its manifest says."""

    resumable = False


class Interrupted(FluxconvError):
    """The user pressed Ctrl-C."""

    exit_code = 130
    resumable = True


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown `name`: the nearest known ones, or all of them."""
    by_letters = {each.casefold(): each for each in sorted(known)}
    wanted = name.casefold()
    close = difflib.get_close_matches(wanted, by_letters, n=3, cutoff=0.5)
    if wanted in by_letters:
        close = [wanted]
    if close:
        return f"; did you mean {' or '.join(by_letters[each] for each in close)}?"
    return f"; known: {', '.join(by_letters.values())}"
