"""A file system that fsspec knows by its entry point alone: a folder of this disk as `shared://`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

_ENTRY = "[fsspec.specs]\nshared = shared_file_system:SharedFileSystem\n"


class SharedFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """What stands after `shared://` is an absolute path."""

    protocol = "shared"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("shared://"))


def install(folder: Path) -> list[str]:
    """Make `folder` a place in which Python finds it as an installed package; returns what has to
    stand on the path of a process that shall know it."""
    about = folder / "shared_file_system-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shared_file_system\nVersion: 1\n")
    (about / "entry_points.txt").write_text(_ENTRY)
    return [str(folder), str(Path(__file__).parent)]
