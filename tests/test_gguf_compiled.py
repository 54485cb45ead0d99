"""Compiled encoders do what they do without a compiler, are compiled once, and can be done without.

On a CPU torch needs a C++ compiler for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from encoder_promises import PROMISES

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"
)
SCRIPT = Path(__file__).with_name("compiled_encoders.py")


def _run(*type_names: str, **environment: str) -> tuple[dict[str, Any], str]:
    """What the script found, and what it said beside that."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *type_names],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
@needs_compiler
def test_compiled_once_they_do_what_they_do_without(tmp_path: Path) -> None:
    cache = {"FLUXCONV_COMPILE": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    compiled, _ = _run(*PROMISES, **cache)
    eager, _ = _run(*PROMISES, FLUXCONV_COMPILE="0")
    assert compiled["compiler"] and not eager["compiler"]
    for name, found in compiled["encoders"].items():
        # A compiler sums in another order, which moves a choice between near equals.
        assert found["error"] == pytest.approx(eager["encoders"][name]["error"], rel=1e-3), name
        assert found["pieces"] and found["threads"], name
    again, _ = _run(*PROMISES, **cache)
    assert again["encoders"] == compiled["encoders"]
    assert not again["compiler"]


@pytest.mark.slow
def test_without_a_compiler_they_are_slower_and_say_so(tmp_path: Path) -> None:
    nothing = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    without, said = _run("Q4_K", **nothing)
    eager, silence = _run("Q4_K", FLUXCONV_COMPILE="0")
    assert without["encoders"] == eager["encoders"]
    assert said.count("torch cannot compile the GGUF encoders here") == 1 and not silence


@pytest.mark.slow
@needs_compiler
def test_what_was_compiled_outlives_a_restart(tmp_path: Path) -> None:
    """It lies in the user's cache, and not in the temporary folder that torch takes by itself; from
    there it is loaded without a compiler."""
    torchs_own = Path(tempfile.gettempdir(), "torchinductor_somebody")
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(torchs_own), "XDG_CACHE_HOME": str(tmp_path)}
    first, _ = _run("Q8_0", FLUXCONV_COMPILE="1", **cache)
    assert list((tmp_path / "fluxconv" / "kernels").glob("Q8_0*.so"))
    without, said = _run("Q8_0", FLUXCONV_COMPILE="1", CXX=str(tmp_path / "none"), **cache)
    assert without == {**first, "compiler": False} and not said


@pytest.mark.slow
@needs_compiler
def test_what_is_damaged_is_compiled_anew(tmp_path: Path) -> None:
    cache = {"FLUXCONV_COMPILE": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    first, _ = _run("Q8_0", **cache)
    (made,) = tmp_path.glob("Q8_0*.so")
    for damaged in (b"", made.read_bytes()[:-1000]):
        made.write_bytes(damaged)
        again, _ = _run("Q8_0", **cache)
        assert again == first
        assert len(made.read_bytes()) > len(damaged)


@pytest.mark.slow
@needs_compiler
def test_two_processes_may_compile_at_once(tmp_path: Path) -> None:
    cache = {"FLUXCONV_COMPILE": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: _run("Q8_0", **cache)[0], range(2))
    assert one["encoders"] == other["encoders"]
    assert [file.suffix for file in tmp_path.glob("Q8_0*")] == [".so"]
