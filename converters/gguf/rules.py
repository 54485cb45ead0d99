"""What a user can set about GGUF files: types of single tensors, and how blocks are encoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, get_args

from pydantic import field_validator

from fluxconv.converters.backends.options import Options, check_pattern
from fluxconv.converters.dtypes import FLOATS
from fluxconv.converters.errors import nearest
from fluxconv.converters.gguf.encoders.types import Effort, encoder
from fluxconv.converters.gguf.importance import ImportanceFile
from fluxconv.converters.gguf.types import TYPES

if TYPE_CHECKING:
    from fluxconv.converters.backends.base import PlannedTensor, Target


class Asked(NamedTuple):
    """The type that a rule gives a tensor. `module` is the source's module that the rule found it
    by, None where that was the tensor's own name."""

    type_name: str
    module: str | None


class GgufOptions(Options):
    """Settings of every GGUF backend.

    `tensor_types` are rules `REGEX=TYPE`, split at the last `=`; the first that matches a tensor
    gives its type, and one that makes no difference is refused. The expression is searched for in
    the tensor's GGUF name (`double_blocks.0.img_attn.qkv.weight`) and in the names of the source
    modules that make it up (`transformer_blocks.0.attn.to_q`), so one of several fused modules
    decides for all of them. A rule beats `skip`, which says less.
    """

    tensor_types: tuple[str, ...] = ()

    @field_validator("tensor_types")
    @classmethod
    def _valid(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked(rule) for rule in rules)

    def without_each_rule(self) -> Iterator[tuple[str, Self]]:
        rules = self.tensor_types
        for i in reversed(range(len(rules))):  # of two that are alike, the later is one too many
            yield rules[i], self.model_copy(update={"tensor_types": (*rules[:i], *rules[i + 1 :])})

    def types_asked(self) -> tuple[str, ...]:
        """The types of all rules."""
        return tuple(rule.rpartition("=")[2] for rule in self.tensor_types)

    def asked(self, target: Target) -> Asked | None:
        """What the user wants for `target`, None where no rule matches."""
        modules = [part.tensor.rpartition(".")[0] for part in target.slices]
        for rule in self.tensor_types:
            pattern, _, type_name = rule.rpartition("=")
            if re.search(pattern, target.name):
                return Asked(type_name, None)
            found = next((module for module in modules if re.search(pattern, module)), None)
            if found is not None:
                return Asked(type_name, found)
        return None

    def metadata(self, types: Iterable[str]) -> dict[str, str | int]:
        """What the metadata of a file that has these `types` says of them."""
        return {}


class BlockOptions(GgufOptions):
    """Settings of the backends whose type has blocks.

    `effort` is how long the encoder searches. `importance` is the path of an importance file, whose
    values weigh the error of each input channel; what is kept and recorded of it is its content.
    `unbiased` stretches every block to the length of its weights, see `gguf.encode`.
    """

    effort: Effort = "best"
    importance: ImportanceFile | None = None
    unbiased: bool = False

    @field_validator("importance", mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        return ImportanceFile.read(Path(given)) if isinstance(given, str | Path) else given

    def check(self, backend: str, tensors: Sequence[PlannedTensor]) -> None:
        if self.importance is not None:
            self.importance.check(backend, tensors)

    def remark(self, tensors: Sequence[PlannedTensor], source: str) -> str | None:
        return None if self.importance is None else self.importance.remark(tensors, source)

    def heeded(self, types: Iterable[str]) -> Self:
        """The same, with the defaults of those settings that change no byte of any of `types`."""
        fields = type(self).model_fields
        return self.model_copy(update={key: fields[key].default for key in self._idle(types)})

    def _idle(self, types: Iterable[str]) -> set[str]:
        blocks = set(types) - FLOATS
        searches = any(encoder(name, "best", searching=True).searches for name in blocks)
        # An importance file need not have every tensor.
        fast, best = (
            [encoder(name, effort, searching=self.unbiased) for name in sorted(blocks)]
            for effort in get_args(Effort)
        )
        unweighed = set() if searches else {"importance", "unbiased"}
        return unweighed | {"effort"} if fast == best else unweighed

    def metadata(self, types: Iterable[str]) -> dict[str, str | int]:
        found: dict[str, str | int] = {}
        idle = self._idle(types)
        if "effort" not in idle:
            found["fluxconv.effort"] = self.effort
        if self.unbiased and "unbiased" not in idle:
            found["fluxconv.unbiased"] = True
        if self.importance is not None and "importance" not in idle:
            found["fluxconv.importance.sha256"] = self.importance.sha256
            found["quantize.imatrix.entries_count"] = self.importance.entries
        return found

    def word(self, key: str, value: Any) -> str:
        # No hash: it says nothing to a reader, and the manifest has it.
        return {"effort": self.effort, "importance": key}.get(key) or super().word(key, value)


def _checked(rule: str) -> str:
    """The rule with its type in upper case; raises `ValueError` saying what is wrong with it."""
    pattern, _, given = rule.rpartition("=")
    if not (pattern and given):
        raise ValueError(f"'{rule}' is no rule; give REGEX=TYPE, such as img_mlp=Q8_0")
    check_pattern(pattern)
    type_name = given.upper()
    if type_name not in TYPES:
        hint = nearest(type_name, TYPES)
        closest = hint if "did you mean" in hint else ""
        raise ValueError(f"'{rule}': '{given}' is not one of {', '.join(TYPES)}{closest}")
    return f"{pattern}={type_name}"
