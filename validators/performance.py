"""The performance layer: memory and time of one way to run a pipeline, in a process of its own.

Memory after loading and peak memory are the columns of the table in diffusers' quantization guide.
On a GPU they are what torch has allocated on it. On a CPU they are the resident memory of the
process, Python and the libraries included (about 500 MB), as a system monitor shows it: that is
what has to be free. Weights that a library maps from their file count once they are first read, so
there a source can take little after loading.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from fluxconv.converters.checkpoint import Opening
from fluxconv.converters.modes import PLAIN, Mode, get_mode
from fluxconv.converters.progress import Progress
from fluxconv.validators.drawing import draw_picture, opened, pictures_of
from fluxconv.validators.machine import status_bytes
from fluxconv.validators.memory import import_libraries
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.report import Settings
from fluxconv.validators.results import Performance
from fluxconv.validators.torch_errors import torch_errors

#: Pictures that count, after one that does not.
PICTURES = 3


def measure(
    opening: Opening,
    role: str,
    device: str,
    settings: Settings,
    progress: Progress,
    *,
    mode: str = PLAIN,
    pictures: int = PICTURES,
) -> Performance:
    """Measure the source or the variant that `opening` is of, in a fresh process.

    The prompts and seeds of `settings` are drawn in turn. What cannot run, or fails, says `why`.
    """
    why = get_mode(mode).cannot_run(device)
    if why is not None:
        return _not_run(mode, device, why)
    request = {
        "opening": opening._asdict(),
        "role": role,
        "device": device,
        "settings": settings.model_dump(mode="json"),
        "mode": mode,
        "pictures": pictures,
    }
    with Worker() as worker:
        try:
            found = worker.run("performance", request, progress)
        except LayerFailed as error:
            return _not_run(mode, device, str(error))
    return Performance.model_validate(found)


def performance(
    progress: Progress,
    opening: Mapping[str, Any],
    role: str,
    device: str,
    settings: Any,
    mode: str,
    pictures: int = PICTURES,
) -> Any:
    """Job: `measure`, in the process that the worker is."""
    found = measure_here(
        Opening(**opening),
        role,
        device,
        Settings.model_validate(settings),
        progress,
        get_mode(mode),
        pictures,
    )
    return found.model_dump(mode="json")


def _not_run(mode: str, device: str, why: str) -> Performance:
    return Performance(mode=mode, device=device, execution={}, why=why)


def measure_here(
    opening: Opening,
    role: str,
    device: str,
    settings: Settings,
    progress: Progress,
    mode: Mode,
    pictures: int,
) -> Performance:
    """Measure in this process, which must have done nothing else before.

    Raises what loading raises, `NotEnoughMemory`, and `FluxconvError` for what torch fails in.
    """
    name = Path(opening.path).name
    progress.start(f"Measuring {name}, {mode.name}", (pictures + 1) * settings.steps, "steps")
    with torch_errors(name, mode):
        import_libraries()  # which is no part of loading the models
        memory = _Memory(device)
        start = time.perf_counter()
        pipeline, execution = opened(opening, role, device, mode.name, settings)
        memory.wait()
        load_seconds = time.perf_counter() - start
        loaded = memory.now()
        with _compiled_anew() if mode.compiles else nullcontext():
            seconds = list(_drawing_times(pipeline, settings, pictures + 1, memory, progress))
    progress.finish()
    first, *rest = seconds
    median = statistics.median(rest)
    return Performance(
        mode=mode.name,
        device=device,
        execution=execution,
        pictures=pictures,
        load_seconds=round(load_seconds, 3),
        memory_loaded=loaded,
        memory_peak=memory.peak(),
        seconds=round(median, 4),
        compile_seconds=round(max(0.0, first - median), 3) if mode.compiles else None,
    )


def _drawing_times(
    pipeline: Any, settings: Settings, count: int, memory: _Memory, progress: Progress
) -> Iterator[float]:
    for picture in islice(cycle(pictures_of(settings)), count):
        start = time.perf_counter()
        draw_picture(pipeline, picture, settings, lambda: progress.advance(1))
        memory.wait()
        yield time.perf_counter() - start


@contextmanager
def _compiled_anew() -> Iterator[None]:
    """What torch compiled in an earlier run would make compiling look as if it took no time."""
    from torch._inductor.utils import fresh_cache

    with fresh_cache():
        yield


class _Memory:
    """The memory that counts on a device, from here on."""

    def __init__(self, device: str) -> None:
        self._gpu = device != "cpu"
        if self._gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            # Linux sets the peak back to what is resident now; it may be forbidden, and the peak
            # is then that of the process's whole life, in which nothing larger came before.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self._gpu:
            import torch

            torch.cuda.synchronize()

    def now(self) -> int:
        """Bytes in use."""
        if self._gpu:
            import torch

            return int(torch.cuda.memory_allocated())
        return status_bytes("VmRSS") or _largest_resident()

    def peak(self) -> int:
        """The most bytes that were in use."""
        if self._gpu:
            import torch

            return int(torch.cuda.max_memory_allocated())
        return status_bytes("VmHWM") or _largest_resident()


def _largest_resident() -> int:
    """The peak of the process, where there is no /proc: macOS counts bytes there."""
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
