"""What the machine at hand is, and how much of its memory is free."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from fluxconv.validators.results import Machine

_LIMITS = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}
_USES = {"cgroup2": "memory.current", "cgroup": "memory.usage_in_bytes"}
_CACHES = {"cgroup2": "inactive_file", "cgroup": "total_inactive_file"}


def this_machine(device: str) -> Machine:
    """This machine; its GPU only if `device` is one."""
    gpu = gpu_memory = None
    if device == "cuda":
        import torch

        found = torch.cuda.get_device_properties(0)
        gpu, gpu_memory = found.name, found.total_memory
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=_cores(),
        memory=_all_memory(),
        gpu=gpu,
        gpu_memory=gpu_memory,
    )


def free_memory(address_space: int = 0) -> int:
    """Bytes of main memory that this process can still take: the least of what the machine has
    available, what its control groups leave, and what a limit on its address space does.

    Of the last, `address_space` is taken off: what is mapped but not used.
    """
    found = [_available(), *_cgroup_room()]
    room = _address_room()
    if room is not None:
        found.append(room - address_space)
    return max(0, min(found))


def free_gpu_memory() -> int:
    """Bytes of the GPU's memory that this process can still take."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    # What torch holds and does not use is as good as free.
    return int(free) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def status_bytes(field: str) -> int | None:
    """A field of `/proc/self/status` in bytes (`VmRSS`, `VmHWM`, `VmSize`); None elsewhere than on
    Linux."""
    return _kilobytes(Path("/proc/self/status"), field)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))  # those this process may use
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _all_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _available() -> int:
    # Elsewhere than on Linux nothing in Python tells it: then a machine is taken to be idle.
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable") or _all_memory()


def _kilobytes(file: Path, field: str) -> int | None:
    try:
        lines = file.read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return next((int(number) * 1024 for number in found), None)


def _address_room() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = status_bytes("VmSize")
    return None if limit == resource.RLIM_INFINITY or used is None else limit - used


def _cgroup_room() -> Iterator[int]:
    """What each control group that this process is in still gives it. File cache that the kernel
    would drop counts as free."""
    for kind, folder in _cgroup_folders():
        try:
            limit = int((folder / _LIMITS[kind]).read_text())
            used = int((folder / _USES[kind]).read_text())
            stat = dict(
                line.split(maxsplit=1) for line in (folder / "memory.stat").read_text().splitlines()
            )
        except (OSError, ValueError):  # no such file, or "max"
            continue
        yield limit - used + int(stat.get(_CACHES[kind], 0))


def _cgroup_folders() -> Iterator[tuple[str, Path]]:
    """The folders of the memory controller, from this process's group up, and their kind."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        kind = "cgroup" if "memory" in controllers.split(",") else "cgroup2"
        if controllers and kind == "cgroup2":
            continue
        for _, mount, kind_mounted, options, *_ in mounts:
            fits = "memory" in options.split(",") or kind == "cgroup2"
            if kind_mounted == kind and fits:
                own = Path(mount, path.lstrip("/"))
                # In a container the path may be the host's: then only the mount is there.
                inner = (own, *own.parents)
                yield from ((kind, p) for p in inner if p.is_relative_to(mount) and p.is_dir())
