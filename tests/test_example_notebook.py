"""The example notebook runs as it stands, and holds no trace of where it was tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from documented import DOCS

NOTEBOOK = DOCS / "example.ipynb"


def test_notebook_holds_no_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in cells}) == len(cells)


@pytest.mark.slow
def test_cells_run_in_order(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "notebook.py"), str(NOTEBOOK)],
        cwd=DOCS,  # where Jupyter starts
        env={**os.environ, "TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for said in (
        "tiny-flux-gguf-q8_0 passed",
        "rehearsal/tiny-flux-torchao-int8",
        "a red star on a blue background native",
        "UnknownBackend: unknown backend 'gguf-q4_k'; did you mean gguf-q4_k_s",
    ):
        assert said in done.stdout
    (work,) = tmp_path.glob("fluxconv-example-*")
    assert (work / "comparison" / "report.html").is_file()
    assert (work / "star.png").is_file()
