"""Running the code of a published card as somebody who has only the card would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from huggingface_hub import HfApi

from fluxconv.hub.rehearsal import RehearsalHub


def code_of(card: str, language: str = "python") -> list[str]:
    """The blocks of code of a card, as a reader would copy them: the plainest way first."""
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.S | re.M)


def run_card_code(repository: str, hub: RehearsalHub, folder: Path) -> Path:
    """Fetch the card of `owner/name` and run its code in a fresh process that knows nothing but
    the Hub's address; returns the picture it draws in `folder`."""
    api = HfApi(endpoint=hub.url, token=hub.token)
    card = api.hf_hub_download(repository, "README.md", local_dir=folder / "card")
    code = code_of(Path(card).read_text())[0]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "home"),
            "HF_TOKEN": hub.token,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "picture.png"
