"""What every action of a fault is: typed settings, and what it does with one request."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from fluxconv.hub.rehearsal.faults.exchange import Exchange


class Action(BaseModel):
    """One way in which a server can fail. ``do`` is its name in a script."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    do: str

    async def perform(self, exchange: Exchange) -> None:
        """Treat one request; afterwards it has been answered, or its connection is closed."""
        raise NotImplementedError
