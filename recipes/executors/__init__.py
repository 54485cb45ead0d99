"""What runs the nodes of a release: this machine, or a cluster."""

from __future__ import annotations

from fluxconv.recipes.executors.base import Executor


def open_executor(
    kind: str, *, device: str, processes: int | None = None, address: str | None = None
) -> Executor:
    """The executor of that kind, for the `device` that nodes compute on; use it as a context
    manager. `processes` None lets it choose, `address` is that of a cluster.

    Raises `MissingRequirement` if its library is not installed.
    """
    if kind == "ray":
        from fluxconv.recipes.executors.ray import RayExecutor

        cluster: Executor = RayExecutor(address=address, processes=processes)
        return cluster
    from fluxconv.recipes.executors.local import LocalExecutor

    return LocalExecutor(device=device, processes=processes)
