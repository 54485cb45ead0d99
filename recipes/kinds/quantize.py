"""One pass over a checkpoint that writes all its variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.recipes.devices import device_of
from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work, digest
from fluxconv.recipes.kinds.fetch import reopened

if TYPE_CHECKING:
    from fluxconv.converters.backends import Backend
    from fluxconv.converters.variant import Variant


def backends_of(arguments: Mapping[str, Any]) -> tuple[Backend, ...]:
    """The backends in the arguments of a node, with their settings."""
    from fluxconv.converters.backends import get_backend

    return tuple(
        get_backend(each["name"]).configured(
            {
                key: value["path"] if isinstance(value, Mapping) and "sha256" in value else value
                for key, value in each["options"].items()
            }
        )
        for each in arguments["backends"]
    )


def result_of(variants: Iterable[Variant], fetched: Result) -> dict[str, Any]:
    """What a pass leaves: each variant's own digest, the sha256 of its manifest, and that of the
    source it was made from."""
    from fluxconv.converters.manifest import MANIFEST_NAME
    from fluxconv.converters.variant import hash_file

    made = {each.name: hash_file(each.root / MANIFEST_NAME).sha256 for each in variants}
    return {"variants": made, "source": fetched["digest"], "digest": digest(made)}


def stands(result: Result, output: Path) -> bool:
    """Whether every variant is there, with the manifest that it had and files of their sizes."""
    from fluxconv.converters.manifest import MANIFEST_NAME, read_manifest
    from fluxconv.converters.variant import hash_file

    for name, sha256 in result["variants"].items():
        root = output / name
        if not (root / MANIFEST_NAME).is_file():
            return False
        if hash_file(root / MANIFEST_NAME).sha256 != sha256:
            return False
        for file, record in read_manifest(root).files.items():
            path = root / file
            if not path.is_file() or path.stat().st_size != record.size:
                return False
    return True


def packages(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """What a manifest names with its version."""
    from fluxconv.converters.backends import get_backend

    own = {get_backend(each["name"]).requirement.package for each in arguments["backends"]}
    return ("torch", "diffusers", "transformers", "safetensors", *sorted(own))


def outdated(
    backends: Sequence[Backend], name: str, fetched: Result, work: Work
) -> tuple[Backend, ...]:
    """Those of the backends whose variants this release made earlier, of another state of the
    source or with other libraries: they may be replaced."""
    moved = work.earlier is not None and work.earlier["source"] != fetched["digest"]
    return tuple(
        backend
        for backend, place in _ours(backends, name, work)
        if moved or has_other_versions(place)
    )


def harmed(backends: Sequence[Backend], name: str, work: Work) -> tuple[Backend, ...]:
    """Those whose variants this release made earlier, and whose files were changed or lost since:
    they may be replaced, too. Reads all of them."""
    from fluxconv.converters.errors import NotAVariant
    from fluxconv.converters.variant import open_variant

    found = []
    for backend, place in _ours(backends, name, work):
        try:
            open_variant(place).check_hashes(work.progress)
        except NotAVariant:
            found.append(backend)
    return tuple(found)


def _ours(backends: Sequence[Backend], name: str, work: Work) -> Iterator[tuple[Backend, Path]]:
    """The backends whose variants this release made, by their manifests, and where they are."""
    from fluxconv.converters.manifest import MANIFEST_NAME
    from fluxconv.converters.variant import hash_file

    known = work.earlier["variants"] if work.earlier else {}
    for backend in backends:
        place = work.output / f"{name}-{backend.label}"
        manifest = place / MANIFEST_NAME
        if manifest.is_file() and hash_file(manifest).sha256 == known.get(place.name):
            yield backend, place


def has_other_versions(variant: Path) -> bool:
    """Whether the variant was made with other libraries than are here."""
    from importlib import metadata

    from fluxconv.converters.manifest import read_manifest

    versions = read_manifest(variant).versions
    return any(metadata.version(name) != version for name, version in versions.items())


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.converters import quantize
    from fluxconv.converters.errors import OutputExists

    fetched = work.only("fetch")
    source = reopened(fetched)
    backends = backends_of(work.arguments)
    device = device_of(work.arguments["device"])

    def made(again: tuple[Backend, ...]) -> list[Variant]:
        # Two passes only where some stay and some are replaced.
        passes = ((again, True), (tuple(b for b in backends if b not in again), False))
        return [
            variant
            for chosen, overwrite in passes
            if chosen
            for variant in quantize(
                source,
                chosen,
                work.output,
                components=tuple(work.arguments["components"]),
                device=device,
                overwrite=overwrite,
                progress=work.progress,
            )
        ]

    again = outdated(backends, source.name, fetched, work)
    try:
        variants = made(again)
    except OutputExists:
        broken = harmed([b for b in backends if b not in again], source.name, work)
        if not broken:
            raise
        for backend in broken:
            work.progress.note(f"{source.name}-{backend.label}: was harmed, and is made again")
        variants = made((*again, *broken))
    return result_of(variants, fetched)


KIND = Kind("quantize", 1, _run, stands, packages)
