"""A release of a checkpoint on the Hub: at one commit, until somebody says otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_client import USER
from huggingface_hub import HfApi
from releases import TINY_FLUX, write_recipe

from fluxconv.hub.rehearsal import RehearsalHub


@pytest.mark.slow
def test_revision_that_moves_is_refused_unless_it_is_pinned(
    tmp_path: Path, hub: RehearsalHub, api: HfApi
) -> None:
    source = f"{USER}/moving"
    api.create_repo(source)
    first = api.upload_folder(repo_id=source, folder_path=TINY_FLUX).oid
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
    }

    def run(code: int = 0, **checkpoint: str) -> Any:
        recipe = write_recipe(tmp_path, checkpoints=[{"id": source, **checkpoint}])
        done = subprocess.run(
            [sys.executable, "-m", "fluxconv.commands", "run", str(recipe), "--json"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr[-3000:]
        found = json.loads(done.stdout)
        return found["error"]["message"] if code else {n["id"] for n in found["nodes"] if n["now"]}

    def made_from() -> str:
        manifest = tmp_path / "out" / "moving-torchao-int8" / "fluxconv.json"
        return str(json.loads(manifest.read_text())["source"]["revision"])

    assert "quantize.moving" in run()
    assert made_from() == first
    assert run() == set()
    second = api.upload_file(
        repo_id=source, path_in_repo="notes.txt", path_or_fileobj=b"a word more"
    ).oid
    said = run(code=3)
    assert f"has moved from {first} to {second}" in said and "`revision:`" in said
    assert made_from() == first
    # The first commit finishes the release, in which nothing is left to do.
    assert run(revision=first) == set()
    assert made_from() == first
    # The second, pinned, is a decision: its variant takes the place of what this release made.
    assert {"fetch.moving", "quantize.moving"} <= run(revision=second)
    assert made_from() == second
