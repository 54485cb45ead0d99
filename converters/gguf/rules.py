"""What a user can set about GGUF files: types of single tensors, and how blocks are encoded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from fluxconv.converters.backends.options import Options, check_pattern
from fluxconv.converters.errors import nearest
from fluxconv.converters.gguf.encoders.types import Effort
from fluxconv.converters.gguf.importance import ImportanceFile
from fluxconv.converters.gguf.types import TYPES

if TYPE_CHECKING:
    from fluxconv.converters.backends.base import PlannedTensor, Target


class GgufOptions(Options):
    """Settings of every GGUF backend.

    `tensor_types` are rules `REGEX=TYPE`, split at the last `=`; the first that matches a tensor
    gives its type. The expression is searched for in the tensor's GGUF name
    (`double_blocks.0.img_attn.qkv.weight`) and in the names of the source modules that make it up
    (`transformer_blocks.0.attn.to_q`), so one of several fused modules decides for all of them. A
    rule beats `skip`, which says less.
    """

    tensor_types: tuple[str, ...] = ()

    @field_validator("tensor_types")
    @classmethod
    def _valid(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked(rule) for rule in rules)

    def patterns(self) -> tuple[str, ...]:
        return tuple(rule.rpartition("=")[0] for rule in self.tensor_types)

    def asked(self, target: Target) -> str | None:
        """The type that the user wants for `target`, None where no rule matches."""
        names = {target.name, *(part.tensor.rpartition(".")[0] for part in target.slices)}
        for rule in self.tensor_types:
            pattern, _, type_name = rule.rpartition("=")
            if any(re.search(pattern, name) for name in names):
                return type_name
        return None

    def metadata(self) -> dict[str, str | int]:
        """What a file's metadata says of them."""
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

    def remark(self, tensors: Sequence[PlannedTensor]) -> str | None:
        return None if self.importance is None else self.importance.remark(tensors)

    def metadata(self) -> dict[str, str | int]:
        found: dict[str, str | int] = {"fluxconv.effort": self.effort}
        if self.unbiased:
            found["fluxconv.unbiased"] = True
        if self.importance is not None:
            found["fluxconv.importance.sha256"] = self.importance.sha256
            found["quantize.imatrix.entries_count"] = self.importance.entries
        return found

    def word(self, key: str, value: Any) -> str:
        # No hash: it says nothing to a reader, and the manifest has it.
        return {"effort": self.effort, "importance": key}.get(key) or super().word(key, value)


def _checked(rule: str) -> str:
    """The rule with its type in upper case; raises `ValueError` saying what is wrong with it."""
    pattern, _, given = rule.rpartition("=")
    if not pattern:
        raise ValueError(f"'{rule}' is no rule; give REGEX=TYPE")
    check_pattern(pattern)
    type_name = given.upper()
    if type_name not in TYPES:
        hint = nearest(type_name, TYPES)
        closest = hint if "did you mean" in hint else ""
        raise ValueError(f"'{rule}': '{given}' is not one of {', '.join(TYPES)}{closest}")
    return f"{pattern}={type_name}"
