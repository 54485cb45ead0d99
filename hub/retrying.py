"""When a request may be sent again, how long to wait before it, and when to give up.

A request that changes something and gets no answer may have been carried out all the same. So what
is safe to repeat is a table (`RULES`), and what is not is left to whoever asked: they look at what
the Hub has now, and only then ask again.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

#: Seconds that `push` waits for the Hub without seeing anything move, unless told otherwise. The
#: Hub may think about a commit of many large files for a minute.
DEFAULT_TIMEOUT = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0


class Repeat(Enum):
    """After which failures a request is sent again."""

    #: It reads, or says how something is to be: any number of times makes no difference.
    ALWAYS = "always"
    #: It makes something new: only where the Hub surely did nothing.
    UNDONE = "undone"
    #: Its body is a file that is being read: whoever reads it starts over, in the Hub's client.
    CALLER = "caller"


@dataclass(frozen=True)
class Rule:
    """What holds for requests of this method whose path matches."""

    method: str
    path: re.Pattern[str]
    repeat: Repeat

    def covers(self, method: str, path: str) -> bool:
        return bool(re.fullmatch(self.method, method) and self.path.search(path))


#: The first that covers a request decides.
RULES = (
    Rule("GET|HEAD", re.compile(""), Repeat.ALWAYS),
    Rule("POST", re.compile(r"/preupload/|/paths-info/|/api/validate-yaml$"), Repeat.ALWAYS),
    Rule("POST", re.compile(r"/info/lfs/objects/(batch|verify)$"), Repeat.ALWAYS),
    Rule("PUT", re.compile(r"/api/models/[^/]+/[^/]+/settings$"), Repeat.ALWAYS),
    Rule("PUT", re.compile(""), Repeat.CALLER),
    Rule("POST|PATCH|DELETE", re.compile(""), Repeat.UNDONE),
)
#: Statuses after which it may go better the next time.
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504, 522, 524})
#: Of these, the ones that say that nothing was done.
UNDONE = frozenset({429})


def repeat_of(method: str, path: str) -> Repeat:
    """What `RULES` say about a request; `path` is that of its address."""
    return next((rule.repeat for rule in RULES if rule.covers(method, path)), Repeat.UNDONE)


def may_repeat(repeat: Repeat, *, undone: bool) -> bool:
    """Whether to send it again; `undone` says that the failure left the Hub as it was."""
    return repeat is Repeat.ALWAYS or (repeat is Repeat.UNDONE and undone)


class Retrying:
    """The attempts at one thing: pauses that grow, with jitter, and never past the deadline.

    `timeout` is in seconds from now, by a clock that nobody sets.
    """

    def __init__(
        self,
        timeout: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._sleep, self._chance = clock, sleep, chance
        self.timeout = timeout
        self.deadline = clock() + timeout
        self.attempts = 1

    @property
    def left(self) -> float:
        """Seconds until the deadline, 0 after it."""
        return max(0.0, self.deadline - self._clock())

    def restart(self) -> None:
        """Something moved: the deadline counts from now again, and pauses are short again."""
        self.deadline = self._clock() + self.timeout
        self.attempts = 1

    def wait(self, retry_after: float | None = None) -> bool:
        """Sleep before the next attempt; False, at once, if there is no time for another.

        `retry_after` is what the Hub asked for, in seconds: never less than that, and not at all
        if it is longer than what is left.
        """
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self.attempts - 1))
        # Many clients that failed together must not come back together.
        pause = max(longest * (0.5 + self._chance() / 2), retry_after or 0.0)
        if pause >= self.left:
            return False
        self._sleep(pause)
        self.attempts += 1
        return True


def retry_after(value: str | None) -> float | None:
    """The seconds that a `Retry-After` header asks for, None if it is absent or a date."""
    text = (value or "").strip()
    return float(text) if text.isdecimal() and len(text) < 10 else None
