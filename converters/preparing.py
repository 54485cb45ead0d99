"""A process that makes backends ready beside others: `python -m fluxconv.converters.preparing`.

It is given callables by pickle on its stdin and says a line for each that it has called. What it
makes stays in the user's cache, from where the process that asked for it loads it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Thread

from fluxconv.converters.threads import cores

_READY = b"ready\n"
_MOST = 8  # processes; each imports torch, and takes 700 MB


def called_beside(todo: Sequence[Callable[[], object]]) -> Iterator[None]:
    """Call all of `todo` in processes of their own, as many as there are cores, and yield whenever
    one was called. What goes wrong there is not told: whoever needs it tries it again."""
    count = min(cores(), _MOST, len(todo))
    try:
        work = [pickle.dumps(list(todo[number::count])) for number in range(count)]
    except (pickle.PicklingError, AttributeError, TypeError):  # a function within a function
        return
    command = [sys.executable, "-P", "-m", __name__]
    started = []
    try:
        for own in work:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us to handle
            )
            started.append(process)
            # In a thread: it reads when it has imported what it needs.
            Thread(target=_give, args=(process, own), daemon=True).start()
        for process in started:
            assert process.stdout
            for line in process.stdout:
                if line == _READY:
                    yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def _give(process: subprocess.Popen[bytes], work: bytes) -> None:
    assert process.stdin
    with suppress(OSError, ValueError), process.stdin:  # it is gone already
        process.stdin.write(work)


def _main() -> None:
    parent = os.getppid()
    for make_ready in pickle.load(sys.stdin.buffer):
        if os.getppid() != parent:
            return  # nobody waits for it any more
        make_ready()
        sys.stdout.buffer.write(_READY)
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
