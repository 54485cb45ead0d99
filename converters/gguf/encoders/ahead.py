"""Code that torch's compiler makes once for this machine's processor, kept and loaded without it.

The compiler takes a second to import and many to compile; loading what it made takes a millisecond.
It is a shared library with a C interface (torch's AOTInductor), called through ctypes, which lets
go of the interpreter's lock: torch's own way to run it does not. A library lies in the cache
folder under the hash of all that it was made from, its own hash at its end; what is damaged is made
anew.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Search = Callable[..., "torch.Tensor"]

_PLACES = 16  # threads that may run one library at the same time; more wait
_DIGEST = hashlib.sha256().digest_size


class Library:
    """A compiled function of contiguous fp32 tensors of one shape, (blocks, weights of a block).

    Source of the interface: torch, `aoti_runtime/interface.h` and `aoti_torch/c/shim.h`.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._calls = ctypes.CDLL(str(path))  # finds libtorch's functions, too
        self._shape = (ctypes.c_int64 * 2)(*shape)
        self._strides = (ctypes.c_int64 * 2)(shape[1], 1)
        self._handle = ctypes.c_void_p()
        self._call(
            "AOTInductorModelContainerCreateWithDevice",
            ctypes.byref(self._handle),
            ctypes.c_size_t(_PLACES),
            b"cpu",
            None,
        )

    def __call__(self, into: torch.Tensor, *inputs: torch.Tensor) -> None:
        """Put the first rows of what comes of `inputs` into `into`, contiguous, as many as it
        has."""
        taken = (ctypes.c_void_p * len(inputs))(*map(self._tensor, inputs))
        made, data = ctypes.c_void_p(), ctypes.c_void_p()
        self._call(
            "AOTInductorModelContainerRun",
            self._handle,
            taken,
            ctypes.c_size_t(len(inputs)),
            ctypes.byref(made),
            ctypes.c_size_t(1),
            None,
            None,
        )
        self._call("aoti_torch_get_data_ptr", made, ctypes.byref(data))
        ctypes.memmove(into.data_ptr(), data, into.nbytes)
        self._call("aoti_torch_delete_tensor_object", made)

    def _tensor(self, tensor: torch.Tensor) -> int | None:
        """A handle on the memory of `tensor`; running takes it away."""
        handle = ctypes.c_void_p()
        self._call(
            "aoti_torch_create_tensor_from_blob",
            ctypes.c_void_p(tensor.data_ptr()),
            ctypes.c_int64(2),
            self._shape,
            self._strides,
            ctypes.c_int64(0),
            self._calls.aoti_torch_dtype_float32(),
            self._calls.aoti_torch_device_type_cpu(),
            -1,
            ctypes.byref(handle),
        )
        return handle.value

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._calls, name)(*arguments):
            raise RuntimeError(f"{name} failed in {self._calls._name}")


def compiled(
    name: str,
    search: Search,
    inputs: int,
    shape: tuple[int, int],
    options: Mapping[str, Any],
) -> Library:
    """`search` of as many `inputs` of one `shape`, for the CPU, made if it is not in the cache.

    `name` and the texts of this folder tell it from all others. Raises whatever keeps torch from
    compiling.
    """
    key = hashlib.sha256(repr((name, inputs, shape, sorted(options.items()))).encode())
    key.update(_surroundings())
    path = cache_folder() / f"{name}-{key.hexdigest()[:32]}.so"
    if not _is_whole(path):
        _make(path, search, inputs, shape, options)
    return Library(path, shape)


def _make(
    path: Path, search: Search, inputs: int, shape: tuple[int, int], options: Mapping[str, Any]
) -> None:
    import torch
    import torch._inductor

    class Module(torch.nn.Module):
        def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor]:
            return (search(*given),)

    example = tuple(torch.ones(shape) for _ in range(inputs))
    with compiling(), torch.no_grad():
        graph = torch.export.export(Module(), example).module()
        made = torch._inductor.aot_compile(graph, example, options=dict(options))
    data = Path(str(made)).read_bytes()
    # Two processes may make it at once, and each may be killed: it appears when it is whole.
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data + hashlib.sha256(data).digest())
    Path(file.name).rename(path)


def _is_whole(path: Path) -> bool:
    """Whether it is there as it was written. (Loading a part of a library ends the process.)"""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data[:-_DIGEST]).digest() == data[-_DIGEST:]


@cache
def _surroundings() -> bytes:
    """A hash of what compiled code depends on beside its name and options."""
    import torch

    found = hashlib.sha256(repr((torch.__version__, torch.version.git_version)).encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    found.update(repr((platform.machine(), platform.processor())).encode())
    with suppress(OSError):  # compiled code is for one model of a processor
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found.update(repr(sorted({line for line in lines if line.startswith(_CPU)})).encode())
    return found.digest()


_CPU = ("model name", "flags", "Features")


@contextmanager
def compiling() -> Iterator[None]:
    """What torch's compiler keeps for itself goes into the cache folder, too."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(cache_folder())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated things that torch itself does
            yield
    finally:
        os.environ[name] = before or ""
        if not before:
            del os.environ[name]


def cache_folder() -> Path:
    """Where compiled code outlives a restart, unless the user has chosen a place.

    (torch itself sets the variable to a temporary folder when its compiler is imported.)
    """
    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if not chosen or chosen.startswith(str(Path(tempfile.gettempdir(), "torchinductor_"))):
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        chosen = str(Path(base) / "fluxconv" / "kernels")
    folder = Path(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
