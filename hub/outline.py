"""A remote variant's folder without its weights: enough to judge it, for a few megabytes.

Small files are there whole, large ones as their headers with a hole behind that has their size.
"""

from __future__ import annotations

from pathlib import Path

from fluxconv.converters.checkpoint import read_json
from fluxconv.converters.errors import HubError, WrongContent
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.variant import Variant, open_variant
from fluxconv.hub.fetching import fetch_file, read_start
from fluxconv.hub.remote import RemoteRepository, read_text
from fluxconv.hub.repositories import RemoteVariant
from fluxconv.hub.session import Session
from fluxconv.validators.report import REPORT_NAME

_WEIGHTS = (".safetensors", ".gguf")
#: Bytes up to which a file is fetched whole.
_SMALL = 4 << 20
#: A safetensors header says its own length; one beyond this is not read.
_LARGEST_HEADER = 64 << 20
#: The metadata of a GGUF file has no length; a T5's vocabulary takes 1 MB of it.
_GGUF_HEADER = 16 << 20
#: FLUX.1 has 38 single layers, T5-XXL 24; no size in their configs is beyond some ten thousand.
_MOST_LAYERS, _LARGEST_SIZE = 1_000, 10_000_000
#: Read at once, so that most headers take one request.
_FIRST = 256 << 10


def outline(
    session: Session,
    repository: RemoteRepository,
    variant: RemoteVariant,
    folder: Path,
    *,
    weights: bool,
) -> Variant:
    """Write the outline of `variant` to the new folder `folder` and open it.

    Without `weights` only what tells of memory is brought: configs, the report, and the headers of
    what was carried over. The manifest's names must be safe and in the repository. Raises
    `WrongContent`, `HubUnreachable`, `HubRefused`, `HubError`.
    """
    folder.mkdir(parents=True)
    (folder / MANIFEST_NAME).write_bytes(variant.stored)
    report = variant.folder + REPORT_NAME
    if report in repository.files:
        (folder / REPORT_NAME).write_bytes(read_text(session, repository, report))
    quantized = {name for each in variant.manifest.components.values() for name in each.files}
    for name, record in variant.manifest.files.items():
        place = folder / name
        is_weights = name.endswith(_WEIGHTS)
        if not weights and (name in quantized or not (is_weights or name.endswith(".json"))):
            continue
        if is_weights or repository.files[name].size <= _SMALL:
            outline_file(session, repository, name, place, sha256=record.sha256)
    for name in variant.manifest.components:
        require_sizes(repository, folder, name)
    return open_variant(folder)


def outline_file(
    session: Session,
    repository: RemoteRepository,
    name: str,
    place: Path,
    *,
    sha256: str | None = None,
) -> None:
    """Bring one file to `place`: a small one whole (of this `sha256`, if it is given), of large
    weights the header, of any other nothing but its size. Raises what `fetch_file` does."""
    place.parent.mkdir(parents=True, exist_ok=True)
    size = repository.files[name].size
    if size <= _SMALL:
        fetch_file(session, repository, name, place, sha256=sha256)
        return
    place.write_bytes(_header(session, repository, name) if name.endswith(_WEIGHTS) else b"")
    with place.open("r+b") as stream:
        stream.truncate(size)


def require_sizes(repository: RemoteRepository, folder: Path, component: str) -> None:
    """Raise `WrongContent` for a config whose sizes no model has: plans take time and memory for
    every layer that a config, a stranger's, speaks of."""
    config = read_json(folder / component / "config.json")
    for key, value in config.items():
        most = _MOST_LAYERS if "layers" in key else _LARGEST_SIZE
        if isinstance(value, int) and abs(value) > most:
            raise WrongContent(
                f"{repository.name}: {component}/config.json has {key} {value:.3g}, far more than "
                "a model has"
            )


def _header(session: Session, repository: RemoteRepository, name: str) -> bytes:
    if name.endswith(".gguf"):
        return read_start(session, repository, name, _GGUF_HEADER)
    head = read_start(session, repository, name, _FIRST)
    length = 8 + int.from_bytes(head[:8], "little")
    if length > _LARGEST_HEADER:
        raise HubError(f"{repository.name}/{name}: its header is too long to be one")
    return head[:length] if length <= len(head) else read_start(session, repository, name, length)
