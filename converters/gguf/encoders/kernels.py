"""The searches, compiled once by torch for this machine, or as they are where nothing compiles.

torch's compiler turns a search into C++ (on a GPU into Triton) and calls the system's compiler,
which takes seconds; what it made lies in a cache folder, and the next process only loads it. Both
ways give the same numbers but for the order of sums. `FLUXCONV_COMPILE=0` stays with torch's own
operations, which are many times slower on a CPU.
"""

from __future__ import annotations

import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.converters.gguf.encoders.types import Effort, Encoder, encoder
from fluxconv.converters.gguf.types import TYPES, BlockType

if TYPE_CHECKING:
    import torch

# A GPU needs many weights to be busy; for a CPU, see `Encoder.chunk`.
_CHUNK_ON_GPU = 1 << 20
# One thread: weights are encoded side by side instead. The wrapper in C++ lets go of the
# interpreter's lock, so that they can be. What the processor says of its vectors is believed
# without a trial in four other processes. And fp16 is to mean fp16 even where nothing is stored.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "cpu": {
        "cpp.threads": 1,
        "cpp_wrapper": True,
        "cpp.vec_isa_ok": True,
        "emulate_precision_casts": True,
    },
    "cuda": {"emulate_precision_casts": True},
}

_kernels: dict[tuple[Encoder, bool, bool, str, bool], Kernel] = {}
_lock = threading.Lock()
_failure: str | None = None


@dataclass(frozen=True)
class Kernel:
    """`run` takes `blocks` blocks of weights, fp32 (blocks, weights of a block), and as many
    importances if it is `weighted`, and gives their bytes, uint8 (blocks, bytes of a block)."""

    run: Callable[..., torch.Tensor]
    blocks: int
    weighted: bool


def kernel(
    type_name: str,
    effort: Effort,
    *,
    weighted: bool,
    unbiased: bool,
    device: str,
) -> Kernel:
    """The encoder of a type, made ready for `device`.

    Compiles it if this process has not yet, which takes seconds. Where nothing compiles, warns once
    and gives torch's own operations.
    """
    found = encoder(type_name, effort, searching=weighted or unbiased)
    compiles = found.compiles and _failure is None and os.environ.get("FLUXCONV_COMPILE") != "0"
    key = (found, weighted and found.searches, unbiased and found.searches, device, compiles)
    if key not in _kernels:
        with _lock:
            if key not in _kernels:
                _kernels[key] = _made(TYPES[type_name], *key)
    return _kernels[key]


def _made(
    kind: BlockType,
    encoder: Encoder,
    weighted: bool,
    unbiased: bool,
    device: str,
    compiles: bool,
) -> Kernel:
    global _failure

    def search(*inputs: torch.Tensor) -> torch.Tensor:
        return encoder.encode(inputs[0], inputs[1] if weighted else None, unbiased=unbiased)

    count = (encoder.chunk if device == "cpu" else _CHUNK_ON_GPU) // kind.weights
    if not compiles:
        return Kernel(search, count, weighted)
    try:
        made = _compiled(search, 1 + weighted, (count, kind.weights), device)
    except Exception as error:  # noqa: BLE001 - whatever keeps torch from compiling
        _failure = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(
            "torch cannot compile the GGUF encoders here, so they are many times slower; install a "
            f"C++ compiler and Python's headers ({_failure})",
            RuntimeWarning,
            stacklevel=4,
        )
        return Kernel(search, count, weighted)
    return Kernel(made, count, weighted)


def _compiled(
    search: Callable[..., torch.Tensor], inputs: int, shape: tuple[int, int], device: str
) -> Callable[..., torch.Tensor]:
    import torch
    import torch._inductor
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    example = [torch.ones(shape, device=device) for _ in range(inputs)]
    # Past `torch.compile`, which traces Python for seconds, checks at every call what never changes
    # here, and refuses to run what is compiled while another thread compiles. What the compiler
    # caches by comes from the context.
    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv()))
    with _cache_folder(), torch.no_grad():
        graph = make_fx(search)(*example)
        with tracing(context):
            made: Callable[..., torch.Tensor] = torch._inductor.compile(
                graph, list(example), options=dict(_OPTIONS[device])
            )
        made(*example)
    return made


@contextmanager
def _cache_folder() -> Iterator[None]:
    """Compiled code goes where it outlives a restart, unless the user has chosen a place. (torch
    itself sets the variable to a temporary folder when its compiler is imported.)"""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    if before and not before.startswith(str(Path(tempfile.gettempdir(), "torchinductor_"))):
        yield
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ[name] = str(Path(base) / "fluxconv" / "kernels")
    try:
        yield
    finally:
        os.environ[name] = before or ""
        if not before:
            del os.environ[name]
