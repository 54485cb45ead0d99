"""An importance file as a setting of a backend: known by its content, which is read once a process.

A variant records the file's hash and not its path: the same content elsewhere makes the same
variant, and other content in the same place another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from fluxconv.converters.errors import BadInput
from fluxconv.converters.gguf.types import TYPES
from fluxconv.converters.visible import visible, visible_path

if TYPE_CHECKING:
    import torch

    from fluxconv.converters.backends.base import PlannedTensor, Target

_MAKE = "make one of this checkpoint with `fluxconv importance`"


@dataclass(frozen=True)
class _Content:
    path: Path
    vectors: Mapping[str, torch.Tensor]
    source: str | None


#: What was read in this process, by sha256. Written before work begins; encoders only look up.
_contents: dict[str, _Content] = {}


class ImportanceFile(BaseModel):
    """What is recorded of an importance file: the sha256 of its content, in lower-case hex, and how
    many entries it has. Read back from a record it knows no weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    entries: int

    @classmethod
    def read(cls, path: Path) -> ImportanceFile:
        """The file at `path`; raises what `read_importance` does."""
        from fluxconv.converters.importance import (
            importance_digest,
            importance_source,
            read_importance,
        )

        sha256 = importance_digest(path)
        if sha256 not in _contents:
            _contents[sha256] = _Content(path, read_importance(path), importance_source(path))
        return cls(sha256=sha256, entries=len(_contents[sha256].vectors))

    def of(self, target: Target) -> torch.Tensor | None:
        """The importance of each input channel of `target`, fp32 (columns,); None if there is none.

        By the target's GGUF name, or the mean of the source modules that make it up, as far as the
        file has them.
        """
        import torch

        found = list(self._found(target).values())
        return torch.stack(found).mean(0) if found else None

    def check(self, backend: str, tensors: Sequence[PlannedTensor]) -> None:
        """Raise `BadInput` unless the file is of the model that these tensors are of: it has some
        of those that are quantized, and each in its length."""
        targets, file = _quantized(tensors), visible_path(self._content.path)
        for target in targets:
            for name, vector in self._found(target).items():
                if len(vector) != target.shape[-1]:
                    raise BadInput(
                        f"{file}: has {len(vector)} values for '{name}' where '{target.name}' has "
                        f"{target.shape[-1]} columns; {_MAKE}"
                    )
        if targets and not any(map(self._found, targets)):
            some = ", ".join(map(visible, islice(self._content.vectors, 3)))
            raise BadInput(
                f"{file}: has none of the {len(targets)} tensors that {backend} quantizes, such as "
                f"'{targets[0].name}'; it has {self.entries} others, such as {some}; {_MAKE}"
            )

    def remark(self, tensors: Sequence[PlannedTensor], source: str) -> str | None:
        """That the file was measured on another checkpoint than `source`, and how many quantized
        tensors it leaves out; None if there is nothing to say."""
        said = (self._of_another(source), self._incomplete(tensors))
        return "; ".join(filter(None, said)) or None

    def _of_another(self, source: str) -> str | None:
        measured = self._content.source
        # A copy on this machine has its folder's name alone.
        if not measured or _last(measured) == _last(source):
            return None
        file = visible_path(self._content.path)
        return f"{file} was measured on {visible(measured)}, and this is {visible(source)}"

    def _incomplete(self, tensors: Sequence[PlannedTensor]) -> str | None:
        targets = _quantized(tensors)
        # An embedding has no input to measure.
        layers = [target for target in targets if target.kind != "embedding"]
        without = [target.name for target in layers if not self._found(target)]
        if not without:
            return None
        return (
            f"{len(without)} of {len(targets)} quantized tensors have no importance in "
            f"{visible_path(self._content.path)}, '{without[0]}' first"
        )

    @property
    def _content(self) -> _Content:
        try:
            return _contents[self.sha256]
        except KeyError:
            raise BadInput(
                f"importance file {self.sha256}: only its hash is known here; give its path"
            ) from None

    def _found(self, target: Target) -> dict[str, torch.Tensor]:
        """What the file has about `target`, by the file's own names."""
        vectors = self._content.vectors
        packed = target.name.removesuffix(".weight")
        if packed in vectors:
            return {packed: vectors[packed]}
        modules = (part.tensor.removesuffix(".weight") for part in target.slices)
        return {module: vectors[module] for module in modules if module in vectors}


def _last(source: str) -> str:
    return source.rpartition("/")[2].casefold()


def _quantized(tensors: Sequence[PlannedTensor]) -> list[Target]:
    """The targets stored in blocks."""
    return [each.target for each in tensors if TYPES[each.stored[0].dtype].weights > 1]
