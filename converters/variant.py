"""A finished variant's folder, opened and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.backends import Backend, get_backend
from fluxconv.converters.checkpoint import Checkpoint, Component, Opening, read_json
from fluxconv.converters.errors import NotAVariant
from fluxconv.converters.manifest import MANIFEST_NAME, FileRecord, Manifest, read_manifest
from fluxconv.converters.planning import ComponentPlan, plan_component

if TYPE_CHECKING:
    from fluxconv.converters.progress import Progress

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Variant:
    """A finished variant on this machine."""

    root: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def backend(self) -> Backend:
        """Its backend with its settings; raises `UnknownBackend` or `UsageError` if this fluxconv
        does not know them."""
        return get_backend(self.manifest.backend).configured(self.manifest.options)

    def component_plans(self) -> dict[str, ComponentPlan]:
        """What its files must hold, planned again from its own configs."""
        source = self.manifest.source
        checkpoint = Checkpoint(
            self.root,
            self.manifest.checkpoint,
            source.id,
            source.revision,
            {},
            source.metadata,
            Opening(str(self.root)),
        )
        plans = {}
        for name in self.manifest.components:
            config = read_json(self.root / name / "config.json")
            component = Component(name, self.root / name, config, ARCHITECTURES[name], ())
            plans[name] = plan_component(checkpoint, component, self.backend)
        return plans

    def check_hashes(self, progress: Progress) -> None:
        """Hash every file and compare with the manifest; raises `NotAVariant` naming the first
        that is missing or differs. Files the manifest does not name are not looked at."""
        progress.start("Hashing", sum(record.size for record in self.manifest.files.values()))
        for name, record in self.manifest.files.items():
            path = self.root / name
            if not path.is_file():
                raise NotAVariant(f"{path}: is named by {MANIFEST_NAME} and missing")
            if hash_file(path) != record:
                raise NotAVariant(f"{path}: differs from its hash in {MANIFEST_NAME}")
            progress.advance(record.size, name)
        progress.finish()


def open_variant(path: Path | str) -> Variant:
    """Open the variant in the folder `path`; raises `NotAVariant`. Files are not hashed."""
    root = Path(path)
    if not root.exists():
        raise NotAVariant(f"{root}: no such folder")
    manifest = read_manifest(root)
    for name in manifest.files:
        if not is_safe_path(name):
            raise NotAVariant(
                f"{root}/{MANIFEST_NAME}: names the file '{name}' outside the variant"
            )
    unknown = set(manifest.components) - set(ARCHITECTURES)
    if unknown:
        raise NotAVariant(f"{root}/{MANIFEST_NAME}: names the component '{unknown.pop()}'")
    return Variant(root.resolve(), manifest)


def is_safe_path(name: str) -> bool:
    """Whether `name` is a plain relative path that stays inside its folder."""
    parts = name.split("/")
    return bool(name) and not any(p in ("", ".", "..") or "\\" in p or "\0" in p for p in parts)


def hash_file(path: Path, advance: Callable[[int], object] = lambda nbytes: None) -> FileRecord:
    """Size and sha256 of a file, read in chunks; `advance` hears of each, and may raise."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            advance(len(chunk))
    return FileRecord(size=size, sha256=digest.hexdigest())
