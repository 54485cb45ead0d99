"""Setting faults of a running server from another process, as tests do."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from fluxconv.hub.rehearsal.faults.injection import Record
from fluxconv.hub.rehearsal.faults.script import Fault, Script

_TIMEOUT = 30


@dataclass(frozen=True)
class Admin:
    """The owner of a running server."""

    url: str
    token: str = field(repr=False)

    def inject(self, *faults: Fault) -> Injected:
        """Put faults in force; as a context manager, the result lifts them at the end."""
        body = Script(faults=faults).model_dump_json().encode()
        return Injected(self, tuple(self._ask("POST", "/_admin/faults", body)))

    def clear(self) -> None:
        """Lift all faults."""
        self._ask("DELETE", "/_admin/faults")

    def rules(self) -> list[dict[str, Any]]:
        """Every fault in force: ``id``, ``fault``, ``seen`` and ``hits``."""
        return list(self._ask("GET", "/_admin/faults"))

    def requests(self) -> list[Record]:
        """Every request on record, oldest first."""
        return [Record(**record) for record in self._ask("GET", "/_admin/requests")]

    def forget_requests(self) -> None:
        """Begin the record anew."""
        self._ask("DELETE", "/_admin/requests")

    def lift(self, ids: tuple[int, ...]) -> None:
        """Lift these faults."""
        self._ask("DELETE", "/_admin/faults?" + urllib.parse.urlencode([("id", i) for i in ids]))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        # Not the Hub's client: what it is set to in a test has no business here.
        place = urllib.parse.urlsplit(self.url).netloc
        connection = http.client.HTTPConnection(place, timeout=_TIMEOUT)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            data = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(data["error"])
        return data


@dataclass(frozen=True)
class Injected:
    """Faults that were put in force together."""

    admin: Admin
    ids: tuple[int, ...]

    @property
    def hits(self) -> int:
        """How often any of them has acted."""
        return sum(rule["hits"] for rule in self.admin.rules() if rule["id"] in self.ids)

    def lift(self) -> None:
        """End them; does nothing the second time."""
        self.admin.lift(self.ids)

    def __enter__(self) -> Injected:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.lift()
