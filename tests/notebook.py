"""Runs a notebook's code cells, in order, in one namespace: `python notebook.py FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def run(file: Path) -> None:
    """Every code cell as Jupyter would run it; what a cell prints is printed."""
    space: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads(file.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            code = compile("".join(cell["source"]), f"{file.name}:{cell['id']}", "exec")
            exec(code, space)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
