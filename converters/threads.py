"""How many threads torch computes with while others of ours work beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch compute with at most `count` threads, at least one, in this block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(count, before)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


#: In the environment: the most cores of a process that shares the machine with others of ours, and
#: of those that it starts.
LIMIT = "FLUXCONV_CORES"


def cores() -> int:
    """The processor cores that this process may use."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, int(os.environ.get(LIMIT, here)))


def limit_cores(count: int) -> None:
    """Have this process, and those that it starts from now on, compute on at most `count` cores."""
    os.environ[LIMIT] = str(max(1, count))
    heed_limit()


def heed_limit() -> None:
    """Compute on no more cores than the environment says, also where torch is loaded already."""
    if LIMIT not in os.environ:
        return
    import torch

    count = max(1, min(int(os.environ[LIMIT]), torch.get_num_threads()))
    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)  # for processes that load it themselves
