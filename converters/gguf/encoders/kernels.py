"""The searches, compiled by torch for this machine, or as they are where nothing compiles.

torch's compiler turns a search into C++ (on a GPU into Triton) and calls the system's compiler,
which takes seconds; what it made lies in a cache folder, and the next process only loads it (see
`ahead.py`). Both ways give the same numbers but for how sums are rounded. `FLUXCONV_COMPILE=0`
stays with torch's own operations, which are many times slower on a CPU.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxconv.converters.gguf.encoders.ahead import compiled, compiling
from fluxconv.converters.gguf.encoders.types import ENCODERS, Effort, Encoder, encoder
from fluxconv.converters.gguf.types import TYPES, BlockType

if TYPE_CHECKING:
    import torch

# A GPU needs many weights to be busy; for a CPU, see `Encoder.chunk`.
_CHUNK_ON_GPU = 1 << 20
# One thread: weights are encoded side by side instead. What the processor says of its vectors is
# believed without a trial in four other processes. And fp16 is to mean fp16 even where nothing is
# stored.
_ON_CPU: dict[str, Any] = {
    "cpp.threads": 1,
    "cpp.vec_isa_ok": True,
    "emulate_precision_casts": True,
}
# A product and a sum are rounded once where that is quicker, unless the bytes are to be gguf-py's.
_SEARCHING = {"cpp.enable_floating_point_contract_flag": "fast"}
_ON_GPU = {"emulate_precision_casts": True}

_kernels: dict[tuple[Encoder, bool, bool, str, bool], Kernel] = {}
_lock = threading.Lock()
_failure: str | None = None


@dataclass(frozen=True)
class Kernel:
    """`run` takes where to put the bytes, uint8 (up to `blocks` rows, bytes of a block), `blocks`
    blocks of weights, fp32 (blocks, weights of a block), and as many importances if it is
    `weighted`. All contiguous."""

    run: Callable[..., None]
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
    compiles = _failure is None and os.environ.get("FLUXCONV_COMPILE") != "0"
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
    shape = (count, kind.weights)
    if not compiles:
        return Kernel(_plain(search), count, weighted)
    try:
        if device == "cpu":
            level = next(level for level, each in ENCODERS[kind.name].items() if each == encoder)
            name = f"{kind.name}-{level}{'-weighted' * weighted}{'-unbiased' * unbiased}"
            options = _ON_CPU | (_SEARCHING if encoder.searches else {})
            return Kernel(compiled(name, search, 1 + weighted, shape, options), count, weighted)
        return Kernel(_plain(_on_gpu(search, 1 + weighted, shape, device)), count, weighted)
    except Exception as error:  # noqa: BLE001 - whatever keeps torch from compiling
        _failure = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(
            "torch cannot compile the GGUF encoders here, so they are many times slower; install a "
            f"C++ compiler and Python's headers ({_failure})",
            RuntimeWarning,
            stacklevel=4,
        )
        return Kernel(_plain(search), count, weighted)


def _plain(search: Callable[..., torch.Tensor]) -> Callable[..., None]:
    def run(into: torch.Tensor, *inputs: torch.Tensor) -> None:
        import torch

        with torch.no_grad():
            into.copy_(search(*inputs)[: len(into)])

    return run


def _on_gpu(
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
    with compiling(), torch.no_grad():
        graph = make_fx(search)(*example)
        with tracing(context):
            made: Callable[..., torch.Tensor] = torch._inductor.compile(
                graph, list(example), options=dict(_ON_GPU)
            )
        made(*example)
    return made
