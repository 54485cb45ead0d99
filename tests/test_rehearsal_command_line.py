"""The whole client, as ``hf`` in other processes, works with nothing but HF_ENDPOINT."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_client import CARD, MIB, api_of

from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.usefixtures("online_client")


def test_the_command_line_works_with_hf_endpoint_alone(hub: RehearsalHub, tmp_path: Path) -> None:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))},
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }
    environment.pop("TRANSFORMERS_OFFLINE", None)

    def run(*command: str) -> str:
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    hf = str(Path(sys.executable).with_name("hf"))
    up, down = tmp_path / "up", tmp_path / "down"
    (up / "transformer").mkdir(parents=True)
    weights = os.urandom(2 * MIB)
    (up / "transformer" / "w.safetensors").write_bytes(weights)
    (up / "config.json").write_text("{}")
    run(hf, "upload", "rehearsal/by-hand", str(up), ".")
    run(hf, "upload", "rehearsal/by-hand", str(up / "config.json"), "second.json")
    card = "from huggingface_hub import ModelCard; import sys;"
    card += "ModelCard(sys.argv[1]).push_to_hub('rehearsal/by-hand');"
    card += "print(ModelCard.load('rehearsal/by-hand').data.license_name)"
    assert "non-commercial" in run(sys.executable, "-c", card, CARD)
    run(hf, "download", "rehearsal/by-hand", "--local-dir", str(down))
    assert (down / "transformer" / "w.safetensors").read_bytes() == weights
    assert {"README.md", "second.json", "config.json"} <= {p.name for p in down.iterdir()}
    run(hf, "collections", "create", "By hand", "--description", "All of them")
    slug = next(iter(api_of(hub).list_collections(owner="rehearsal"))).slug
    run(hf, "collections", "add-item", slug, "rehearsal/by-hand", "model", "--note", "First")
    assert "rehearsal/by-hand" in run(hf, "collections", "info", slug)
    assert "by-hand" in run(hf, "models", "info", "rehearsal/by-hand")


def test_serve_names_a_file_that_connects_a_shell_and_prints_no_token(tmp_path: Path) -> None:
    place = tmp_path / "my hub"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    serve = subprocess.Popen(
        [sys.executable, "-m", "fluxconv.commands", "hub", "serve", str(place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert serve.stdout is not None
        line = serve.stdout.readline().strip()
        asked = subprocess.run(
            ["sh", "-c", f"{line} && hf auth whoami && echo $HF_TOKEN"],
            env={**environment, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        serve.terminate()
        _, said = serve.communicate(timeout=20)
    assert "rehearsal" in asked.stdout, asked.stderr
    token = asked.stdout.split()[-1]
    assert token.startswith("hf_") and token not in line + said
    assert "?key=" in said
    assert (place / "environment.sh").stat().st_mode & 0o077 == 0
