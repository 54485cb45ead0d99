"""What a user can set about a backend: typed settings, checked before any work starts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from fluxconv.converters.errors import UsageError, nearest

if TYPE_CHECKING:
    from fluxconv.converters.architectures import TensorSpec
    from fluxconv.converters.backends.base import PlannedTensor

Given = TypeVar("Given", bound="Options")


class Options(BaseModel):
    """Settings that every backend has; a backend's own class adds its fields.

    `skip` are regular expressions, searched for in the names of linear modules, in those of the
    diffusers or transformers layout and in Black Forest Labs' or llama.cpp's: a module that matches
    one stays in high precision.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    skip: tuple[str, ...] = ()

    @field_validator("skip")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            check_pattern(pattern)
        return patterns

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults, as JSON has them."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def skips(self, spec: TensorSpec) -> bool:
        """Whether a pattern of `skip` matches the tensor's module, by either of its names."""
        packed = spec.packed.name.rpartition(".")[0]
        return any(re.search(p, name) for p in self.skip for name in (spec.module, packed))

    def without_each_rule(self) -> Iterator[tuple[str, Self]]:
        """The rules beside `skip` that have to make a difference, each with the settings without
        it."""
        return iter(())

    def check(self, backend: str, tensors: Sequence[PlannedTensor]) -> None:
        """Raise `BadInput` if what they name does not fit the tensors that `backend` plans."""

    def remark(self, tensors: Sequence[PlannedTensor], source: str) -> str | None:
        """What a user should know of the tensors planned with them, where `source` is made into a
        variant; None for nothing."""
        return None

    @property
    def suffix(self) -> str:
        """What they add to a variant's name: empty if all are the defaults."""
        return "".join(f"-{self.word(key, value)}" for key, value in self.changed().items())

    def word(self, key: str, value: Any) -> str:
        """The part of the suffix for one setting that is not the default."""
        key = key.replace("_", "-")
        match value:
            case True:
                return key
            case False:
                return f"no-{key}"
            case list() | dict():  # too long for a name: enough to tell one from another
                return f"{key}-{hashlib.sha256(repr(value).encode()).hexdigest()[:6]}"
            case _:
                return f"{key}-{str(value).replace('_', '-')}"


def check_pattern(pattern: str) -> None:
    """Raise `ValueError` unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None


def parse_options(
    kind: type[Given],
    given: Mapping[str, Any],
    backend: str,
    *,
    flags: Iterable[str] = ("skip", "tensor_types"),
) -> Given:
    """The settings `given` as an object of `kind`; strings are read as YAML reads them.

    `flags` are fields with command-line options of their own, not offered under `--option`. Raises
    `UsageError` naming the key or value, and what is known.
    """
    known = [name for name in kind.model_fields if name not in set(flags)]
    for key in given:
        if key not in kind.model_fields:
            has = nearest(key, known) if known else "; it has no options of its own"
            raise UsageError(f"{backend}: unknown option '{key}'{has}")
    try:
        return kind.model_validate({key: _typed(value) for key, value in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            key = str(first["loc"][0])
            message = f"option {key}: {_allowed(kind, key, str(given.get(key))) or message}"
        raise UsageError(f"{backend}: {message}") from None


def _allowed(kind: type[Options], key: str, value: str) -> str | None:
    """For a field with a list of values: the nearest ones, and the list."""
    schema = kind.model_json_schema()["properties"].get(key, {})
    values = schema.get("enum") or [
        item for part in schema.get("anyOf", ()) for item in part.get("enum", ())
    ]
    if schema.get("type") == "boolean":
        values = ["true", "false"]
    if not values:
        return None
    known = ", ".join(map(str, values))
    return f"'{value}' is not one of {known}{_closest(value, [str(item) for item in values])}"


def _closest(value: str, known: list[str]) -> str:
    found = nearest(value, known)
    return found if "did you mean" in found else ""


def _typed(value: Any) -> Any:
    import yaml

    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value
