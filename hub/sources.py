"""A source checkpoint: a folder of this machine, or a repository of the Hub at a pinned commit."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.checkpoint import CARRIED, CARRIED_FILES, Checkpoint, open_checkpoint
from fluxconv.converters.errors import CheckpointNotFound, NotACheckpoint, UsageError
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import is_safe_path
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.session import bounded_client, open_session

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: Only what a pipeline in the diffusers layout needs; repositories hold much else.
_NEEDED = (
    "model_index.json",
    "README.md",
    *CARRIED_FILES,
    *(f"{folder}/*" for folder in CARRIED),
    *(f"{folder}/*.json" for folder in ARCHITECTURES),
    *(f"{folder}/*.safetensors" for folder in ARCHITECTURES),
)


def open_source(
    text: str,
    *,
    revision: str | None = None,
    source_id: str | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Open the checkpoint in the folder `text`, or in the Hub repository `owner/name`.

    A repository is resolved to a commit first and its files are downloaded at that commit into the
    Hub's own cache; the commit lands in the manifest. `source_id` names the repository that a
    local folder is a copy of. Raises what `open_checkpoint` raises, `CheckpointNotFound` if `text`
    is neither, `UsageError` for an impossible `source_id`, and `HubError`.
    """
    if source_id is not None and not _REPOSITORY.fullmatch(source_id):
        raise UsageError(f"--source-id: '{source_id}' is no Hub repository; give OWNER/NAME")
    if Path(text).exists():
        if revision is not None:
            raise UsageError(f"--revision: {text} is a folder; only a Hub repository has revisions")
        return open_checkpoint(text, source=source_id)
    if not _REPOSITORY.fullmatch(text):
        raise CheckpointNotFound(f"{text}: no such folder, and not a Hub repository (owner/name)")
    from huggingface_hub import hf_hub_download

    progress = progress or Silent()
    session = open_session(None, None)
    with bounded_client(), hub_errors(text):
        info = session.api.model_info(text, revision=revision, files_metadata=True)
        wanted = {
            sibling.rfilename: sibling.size or 0
            for sibling in info.siblings or ()
            if any(fnmatch(sibling.rfilename, pattern) for pattern in _NEEDED)
            and is_safe_path(sibling.rfilename)
        }
        if info.sha is None or "model_index.json" not in wanted:
            raise NotACheckpoint(
                f"{text}: this repository holds no pipeline in the diffusers layout"
            )
        progress.start(f"Downloading {text}", sum(wanted.values()))
        for name, size in wanted.items():
            file = hf_hub_download(
                text,
                name,
                revision=info.sha,
                endpoint=session.endpoint,
                token=session.token or False,
            )
            progress.advance(size, name)
        progress.finish()
    folder = Path(file)
    for _ in Path(name).parts:
        folder = folder.parent
    checkpoint = open_checkpoint(folder, source=text, revision=info.sha)
    return replace(checkpoint, name=text.rpartition("/")[2])
