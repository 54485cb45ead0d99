"""Reading a JSON object that a stranger sent: the right types, or the Hub's 400."""

from __future__ import annotations

import json
from typing import Any

from fluxconv.hub.rehearsal.errors import bad_request


class Fields:
    """A JSON object; every getter refuses a wrong type with a sentence that names the field."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @classmethod
    def parse(cls, text: bytes) -> Fields:
        """Read one JSON object."""
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
            # Half of a surrogate pair is fine in JSON and cannot be written as UTF-8.
            json.dumps(data, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise bad_request("The request body is not valid JSON") from None
        return cls.of(data, "The request body")

    @classmethod
    def of(cls, data: Any, what: str) -> Fields:
        """Take a JSON value that must be an object."""
        if not isinstance(data, dict):
            raise bad_request(f"{what} must be a JSON object")
        return cls(data)

    def __contains__(self, name: str) -> bool:
        return self.data.get(name) is not None

    def text(self, name: str, *, limit: int = 10_000, required: bool = False) -> str | None:
        """A string of at most ``limit`` characters."""
        value = self.data.get(name)
        if value is None:
            if required:
                raise bad_request(f'"{name}" is required')
            return None
        if not isinstance(value, str):
            raise bad_request(f'"{name}" must be a string')
        if required and not value:
            raise bad_request(f'"{name}" is not allowed to be empty')
        if len(value) > limit:
            raise bad_request(
                f'"{name}" length must be less than or equal to {limit} characters long'
            )
        return value

    def required_text(self, name: str, *, limit: int = 10_000) -> str:
        """A string that must be there and not be empty."""
        return self.text(name, limit=limit, required=True) or ""

    def flag(self, name: str) -> bool | None:
        """True, false, or not there."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, bool):
            raise bad_request(f'"{name}" must be a boolean')
        return value

    def number(self, name: str) -> int | None:
        """A whole number from zero up."""
        value = self.data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise bad_request(f'"{name}" must be a whole number, zero or more')
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """One of a few strings."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise bad_request(f'"{name}" must be one of [{", ".join(choices)}]')
        return value

    def objects(self, name: str, *, limit: int) -> list[Fields]:
        """A list of at most ``limit`` JSON objects."""
        value = self.data.get(name)
        if not isinstance(value, list):
            raise bad_request(f'"{name}" must be an array')
        if len(value) > limit:
            raise bad_request(f'"{name}" must contain at most {limit} items')
        return [Fields.of(item, f'Each item of "{name}"') for item in value]

    def object(self, name: str) -> Fields:
        """A JSON object that must be there."""
        return Fields.of(self.data.get(name), f'"{name}"')


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
