"""Which input channels of a layer matter most: files of their mean squares, read and written."""

from fluxconv.converters.importance.reading import (
    importance_digest,
    importance_source,
    read_importance,
)

__all__ = ["importance_digest", "importance_source", "read_importance"]
