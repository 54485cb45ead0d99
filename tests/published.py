"""Variants put into a repository with the client alone, in the layout that a push gives them."""

from __future__ import annotations

from pathlib import Path

from hub_client import USER
from huggingface_hub import CommitOperationAdd, HfApi

from fluxconv.cards.naming import folder_in_repository, repository_name
from fluxconv.converters import Variant


def published(api: HfApi, *variants: Variant, name: str | None = None) -> str:
    """Commit every file of the variants, all of which share one repository; returns its name."""
    repository = f"{USER}/{name or repository_name(variants[0])}"
    api.create_repo(repository, exist_ok=True)
    files: dict[str, Path] = {}
    for variant in variants:
        inner = folder_in_repository(variant)
        for path in sorted(variant.root.rglob("*")):
            own = path.relative_to(variant.root).as_posix()
            shared = own in variant.manifest.files or own in ("README.md", "LICENSE.md", "NOTICE")
            if path.is_file():
                files[own if shared else inner + own] = path
    operations = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
    api.create_commit(repository, operations, commit_message="Publish")
    return repository
