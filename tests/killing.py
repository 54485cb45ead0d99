"""A process that makes variants when told to, in children that can be killed at any moment.

Importing the libraries takes seconds and quantizing the tiny Flux less than one, so the libraries
are imported once and every child is a fork. One JSON object a line comes in on stdin: the arguments
of `quantize`; out go `{"pid": ...}` when the child starts and `{"status": ...}` when it has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def make(
    source: str,
    backends: list[list[Any]],
    output: str,
    encoded: str,
    part: list[int] | None = None,
) -> None:
    """Make the variants, or do a part of it (its index, and of how many); each weight that is
    encoded is noted in the file `encoded`."""
    from fluxconv.converters import open_checkpoint, quantize, quantize_part, stream
    from fluxconv.converters.backends import get_backend

    real = stream._jobs

    def noting(out: Any, weight: str, *rest: Any) -> Any:
        with Path(encoded).open("a") as notes:
            notes.write(f"{out.plan.backend.label} {out.plan.component} {weight}\n")
        return real(out, weight, *rest)

    stream._jobs = noting  # type: ignore[assignment]
    chosen = [get_backend(name).configured(options) for name, options in backends]
    if part:
        quantize_part(open_checkpoint(source), chosen, Path(output), *part)
    else:
        quantize(open_checkpoint(source), chosen, Path(output))


class Maker:
    """The test's end of that process; a context manager."""

    def __enter__(self) -> Maker:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def run(self, *, kill_after: float | None = None, **arguments: Any) -> int:
        """Run once, killed after so many seconds if it still runs then; returns the exit status,
        -9 if it was killed."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        pid = json.loads(self._process.stdout.readline())["pid"]
        if kill_after is not None:
            time.sleep(kill_after)
            # The child is reaped only after its answer was written, so the pid is still its own.
            os.kill(pid, 9)
            self._process.stdin.write("reap\n")
        else:
            self._process.stdin.write("reap\n")
        self._process.stdin.flush()
        status: int = json.loads(self._process.stdout.readline())["status"]
        return status


def main() -> None:
    """Fork a child for each line."""
    import bitsandbytes  # noqa: F401 - imported once, for all children
    import diffusers  # noqa: F401
    import gguf  # noqa: F401
    import optimum.quanto  # noqa: F401
    import torchao.prototype.safetensors.safetensors_support  # noqa: F401
    import transformers  # noqa: F401

    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            try:
                make(**json.loads(line))
            except BaseException as error:  # noqa: BLE001 - the parent reads the status
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        print(json.dumps({"pid": pid}), flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
