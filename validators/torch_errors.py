"""torch's failures while a pipeline is loaded or run, as sentences for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fluxconv.converters.errors import FluxconvError, NotEnoughMemory
from fluxconv.converters.modes import Mode

# What torch's allocators for a CPU say in a plain RuntimeError, and the system in an OSError.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


@contextmanager
def torch_errors(name: str, mode: Mode) -> Iterator[None]:
    """Raise `NotEnoughMemory` or `FluxconvError` for what torch fails in while `name` is loaded or
    run in this mode."""
    import torch
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise NotEnoughMemory(_out_of_memory(name, mode)) from error
    except TorchDynamoException as error:
        raise FluxconvError(f"{name}: torch cannot compile it: {_reason(error)}") from error
    except (RuntimeError, OSError) as error:
        if any(said in str(error) for said in _NO_MEMORY):
            raise NotEnoughMemory(_out_of_memory(name, mode)) from error
        raise


def _out_of_memory(name: str, mode: Mode) -> str:
    more = "" if mode.offload else ", or on a GPU give --offload model"
    return f"{name}: ran out of memory in mode {mode.name}; draw smaller pictures{more}"


def _reason(error: BaseException) -> str:
    """The line that names the cause; the first one only names the compiler."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error:" in line or "Explanation:" in line]
    return (telling or lines or [type(error).__name__])[0][:300]
