"""An output that is a URL: what is made comes there, is known again, and can be published."""

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
from releases import VARIANT, write_recipe
from shared_file_system import install

from fluxconv.converters import open_variant
from fluxconv.converters.progress import Silent
from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.slow


def test_release_goes_to_a_url_and_from_there_to_the_hub(
    tmp_path: Path, hub: RehearsalHub, api: HfApi
) -> None:
    place = tmp_path / "bucket"
    recipe = write_recipe(
        tmp_path / "recipe", output=f"shared://{place}", publication={"namespace": USER}
    )
    path = [*install(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_OFFLINE": "0",
    }

    def fluxconv(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "fluxconv.commands", *words, "--json"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    made = fluxconv("run", str(recipe))
    assert all(node["state"] == "done" and node["now"] for node in made["nodes"])
    open_variant(place / VARIANT).check_hashes(Silent())
    assert (place / VARIANT / "report.json").is_file() and (place / VARIANT / "README.md").is_file()
    assert (place / "comparison-tiny-flux" / "report.html").is_file()
    assert f"{USER}/{VARIANT}" in {model.id for model in api.list_models(author=USER)}
    assert not any(node["now"] for node in fluxconv("run", str(recipe))["nodes"])
    (place / VARIANT / "report.json").unlink()
    again = {node["id"] for node in fluxconv("run", str(recipe))["nodes"] if node["now"]}
    assert f"validate.{VARIANT}" in again and "quantize.tiny-flux" not in again
    assert fluxconv("status", str(recipe))["state"] == "finished"


def test_memory_of_one_process_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe", output="memory://out")
    done = subprocess.run(
        [sys.executable, "-m", "fluxconv.commands", "run", str(recipe)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "memory://out" in done.stderr and "Traceback" not in done.stderr
