"""The process that ``process.start`` starts; people use ``fluxconv hub serve``.

It says one line on standard output, ``ready URL`` or ``failed REASON``, and ends when its
standard input is closed: with its parent, however that died.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from fluxconv.hub.rehearsal.accounts import DEFAULT_USER
from fluxconv.hub.rehearsal.faults import ScriptError, read_script
from fluxconv.hub.rehearsal.limits import Limits
from fluxconv.hub.rehearsal.process import FAILED, READY
from fluxconv.hub.rehearsal.server import ServerError, serve


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fluxconv.hub.rehearsal")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", default=DEFAULT_USER)
    parser.add_argument("--organization", action="append", default=[])
    parser.add_argument("--multipart-above", type=int, default=Limits.multipart_above)
    parser.add_argument("--part-size", type=int, default=Limits.part_size)
    parser.add_argument("--quota", type=int)
    parser.add_argument("--faults", type=Path)
    arguments = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        script = read_script(arguments.faults).faults if arguments.faults else ()
        serve(
            arguments.directory,
            port=arguments.port,
            ready=lambda url: _say(READY, url),
            user=arguments.user,
            organizations=arguments.organization,
            limits=Limits(arguments.multipart_above, arguments.part_size, arguments.quota),
            faults=script,
        )
    except (ServerError, ScriptError) as error:
        _say(FAILED, str(error))
        sys.exit(1)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _say(state: str, what: str) -> None:
    sys.stdout.write(f"{state} {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
