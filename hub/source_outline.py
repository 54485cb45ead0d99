"""A source on the Hub without its weights: enough to plan with it, for a few megabytes."""

from __future__ import annotations

from pathlib import Path

from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.progress import Progress
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.outline import outline_file, require_sizes
from fluxconv.hub.remote import read_commit
from fluxconv.hub.session import Session, bounded_client
from fluxconv.hub.sources import Brought, no_pipeline, not_here, wanted_files


class Outlines:
    """A `Download` (see `open_source`) into `folder`: small files are brought whole, of weights the
    headers, with a hole behind that has their size. What is opened there must not be encoded.

    `missing` is how many bytes the Hub's own cache lacks of the files, which is what a download of
    all of them would bring.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        self._session = session
        self._folder = folder
        self._brought: set[Path] = set()
        self.missing = 0

    def __call__(
        self,
        repository: str,
        revision: str | None,
        progress: Progress,
        *,
        file: str | None = None,
        without: str | None = None,
    ) -> Brought:
        """Raises `HubError`s, `CheckpointNotFound`, `NotACheckpoint`."""
        from huggingface_hub import try_to_load_from_cache

        session = self._session
        with (
            not_here(repository, file),
            bounded_client(session.timeout, home=session.endpoint),
            hub_errors(repository),
        ):
            commit = session.api.model_info(repository, revision=revision).sha
            if commit is None:
                raise no_pipeline(repository)
            remote = read_commit(session, repository, commit)
            sizes = {name: entry.size for name, entry in remote.files.items()}
            wanted = wanted_files(repository, sizes, file, without)
            root = self._folder / repository / commit
            progress.start(f"Looking at {repository}", len(wanted), "files")
            for name in wanted:
                progress.advance(1, name)
                if root / name in self._brought:
                    continue
                outline_file(session, remote, name, root / name)
                self._brought.add(root / name)
                if not isinstance(try_to_load_from_cache(repository, name, revision=commit), str):
                    self.missing += sizes[name]
            progress.finish()
        for component in ARCHITECTURES:
            if (root / component / "config.json").is_file():
                require_sizes(remote, root, component)
        return Brought(root / wanted[0] if file else root, root, repository, commit)
