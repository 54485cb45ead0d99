"""A source checkpoint: on this machine, or in a repository of the Hub at a pinned commit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from fluxconv.converters.checkpoint import (
    Checkpoint,
    architecture_of,
    open_checkpoint,
    read_front_matter,
    read_json,
)
from fluxconv.converters.errors import (
    BadInput,
    CheckpointNotFound,
    HubUnreachable,
    NotACheckpoint,
    UsageError,
)
from fluxconv.converters.manifest import SourceRecord
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.sources.gguf_file import component_in
from fluxconv.converters.sources.single_file import require_single_file
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.needed import INDEX, README, file_called, needed_files
from fluxconv.hub.session import bounded_client, open_session

#: How the weight files end that are given by their own names.
_WEIGHTS = (".safetensors", ".gguf")
_NAME = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}")
_FILE = re.compile(rf"({_NAME}/{_NAME})/(.+\.[A-Za-z]+)")


@dataclass(frozen=True)
class Brought:
    """What to open, and where on the Hub it came from; `root` is the repository's folder."""

    path: Path
    root: Path
    repository: str | None = None
    commit: str | None = None


class Download(Protocol):
    """What brings a repository's files here: all that are needed but the weights of the component
    `without`, or one `file` and the README, at the commit that `revision` means."""

    def __call__(
        self,
        repository: str,
        revision: str | None,
        progress: Progress,
        *,
        file: str | None = None,
        without: str | None = None,
    ) -> Brought: ...


def download_needed(
    repository: str,
    revision: str | None,
    progress: Progress,
    *,
    file: str | None = None,
    without: str | None = None,
) -> Brought:
    """A `Download` of whole files, into the Hub's own cache."""
    from huggingface_hub import hf_hub_download

    session = open_session(None, None)
    with not_here(repository, file), bounded_client(), hub_errors(repository):
        info = session.api.model_info(repository, revision=revision, files_metadata=True)
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
        wanted = wanted_files(repository, sizes, file, without)
        if info.sha is None:
            raise no_pipeline(repository)
        progress.start(f"Downloading {repository}", sum(sizes[name] for name in wanted))
        for name in wanted:
            place = hf_hub_download(
                repository,
                name,
                revision=info.sha,
                endpoint=session.endpoint,
                token=session.token or False,
            )
            progress.advance(sizes[name], name)
        progress.finish()
    root = Path(place)
    for _ in PurePosixPath(name).parts:
        root = root.parent
    return Brought(root / wanted[0] if file else root, root, repository, info.sha)


def open_source(
    text: str,
    *,
    revision: str | None = None,
    source_id: str | None = None,
    base: str | None = None,
    allow_requantize: bool = False,
    progress: Progress | None = None,
    download: Download = download_needed,
) -> Checkpoint:
    """Open the checkpoint at the path `text`, or in the Hub repository `owner/name`, or the single
    file `owner/name/path/to/file.safetensors` of one.

    A repository is resolved to a commit first and the files needed are downloaded at that commit
    into the Hub's own cache; the commit lands in the manifest. `base` is the pipeline whose part
    is replaced, a folder or `owner/name[@revision]`. `source_id` names the repository that a local
    checkpoint is a copy of. Raises what `open_checkpoint` raises, `CheckpointNotFound` if `text`
    is neither, `UsageError` for an impossible `source_id`, and `HubError`.
    """
    if source_id is not None and not _REPOSITORY.fullmatch(source_id):
        raise UsageError(f"--source-id: '{source_id}' is no Hub repository; give OWNER/NAME")
    progress = progress or Silent()
    found = _bring(text, revision, progress, download)
    checkpoint = open_checkpoint(
        found.path,
        source=found.repository or source_id,
        revision=found.commit,
        base=None
        if base is None
        else _bring_base(base, _component_at(found.path), progress, download),
        allow_requantize=allow_requantize,
    )
    if found.repository is not None:
        name = found.path.stem if found.path.is_file() else found.repository.rpartition("/")[2]
        # A single file's own README is that of its repository.
        front_matter = read_front_matter(found.root / README) or checkpoint.front_matter
        checkpoint = replace(checkpoint, name=name, front_matter=front_matter)
    if base is not None and not Path(base).exists():
        checkpoint = replace(checkpoint, base=base)
    for note in checkpoint.notes:
        progress.note(note)
    return checkpoint


def open_recorded(source: SourceRecord, base: str | None, progress: Progress) -> Checkpoint:
    """The source that a manifest records, found again on the Hub at its commit.

    Raises what `open_source` raises, and `BadInput` if it was put together with a base and `base`
    does not say where that is.
    """
    place = source.id
    # A pipeline has no weights beside its index, and a lone component a config beside them.
    single = [name for name in source.files if "/" not in name and name.endswith(".safetensors")]
    if single and "config.json" not in source.files:
        place = f"{source.id}/{single[0]}"
        if INDEX in source.files and base is None:
            raise BadInput(
                f"{place}: was put together with a pipeline; say where it is with --base"
            )
    return open_source(place, revision=source.revision, base=base, progress=progress)


def _bring(text: str, revision: str | None, progress: Progress, download: Download) -> Brought:
    if Path(text).exists():
        if revision is not None:
            kind = "folder" if Path(text).is_dir() else "file"
            raise UsageError(f"--revision: {text} is a {kind}; only a Hub repository has revisions")
        return Brought(Path(text), Path(text))
    if _REPOSITORY.fullmatch(text):
        if text.endswith(_WEIGHTS):
            raise CheckpointNotFound(
                f"{text}: no such file here; a file on the Hub is given as OWNER/NAME/FILE"
            )
        return download(text, revision, progress)
    match = _FILE.fullmatch(text)
    if match is None:
        raise CheckpointNotFound(
            f"{text}: no such folder or file, and not of the Hub (owner/name, or "
            "owner/name/file.safetensors)"
        )
    require_single_file(Path(text))  # before any download
    return download(match[1], revision, progress, file=match[2])


def _bring_base(text: str, component: str, progress: Progress, download: Download) -> Path:
    """The folder of the pipeline `text`, whose `component` is not needed."""
    if Path(text).exists():
        return Path(text)
    repository, _, revision = text.partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise CheckpointNotFound(f"--base {text}: no such folder, and not a Hub repository")
    return download(repository, revision or None, progress, without=component).root


def _component_at(path: Path) -> str:
    if path.suffix == ".gguf" and path.is_file():
        return component_in(path)
    config = path / "config.json"
    return architecture_of(read_json(config), path).component if config.is_file() else "transformer"


def wanted_files(
    repository: str, names: Mapping[str, int], file: str | None, without: str | None
) -> list[str]:
    """Of the repository's files `names`, with their sizes, those that a `Download` brings: `file`
    first if it is given. Raises `CheckpointNotFound` or `NotACheckpoint`."""
    if file is not None:
        return [_require_file(repository, file, names), *({README} & names.keys())]
    found = needed_files(names, without)
    if not found:
        raise no_pipeline(repository)
    return found


def no_pipeline(repository: str) -> NotACheckpoint:
    """What to raise for a repository that holds no checkpoint."""
    return NotACheckpoint(
        f"{repository}: this repository holds no pipeline in the diffusers layout; a single file "
        f"in it is given as {repository}/FILE.safetensors"
    )


@contextmanager
def not_here(repository: str, file: str | None) -> Iterator[None]:
    """Where the Hub cannot be reached, the name may have been meant for a path on this machine."""
    try:
        yield
    except HubUnreachable as error:
        text, kind = (f"{repository}/{file}", "file") if file else (repository, "folder")
        why = str(error).removeprefix(f"{repository}: ")
        raise HubUnreachable(f"{text}: no such {kind} here, and {why}") from None


def _require_file(repository: str, file: str, names: Mapping[str, int]) -> str:
    found = file_called(names, file)
    if found is None:
        there = [name for name in names if name.endswith(_WEIGHTS) and "/" not in name]
        have = f"; it has {', '.join(sorted(there)[:5])}" if there else ""
        raise CheckpointNotFound(f"{repository}: has no file {file}{have}")
    return found
