"""`fluxconv recipe`, as a user has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from recipe_files import HEAD, TINY, written

from fluxconv.recipes.schema import recipe_schema


def _run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fluxconv.commands", "recipe", *map(str, words)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def test_what_init_writes_check_accepts_as_it_is(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "models" / "tiny: flux")  # a name that YAML would take apart
    made = _run("init", "new/release.yaml", "--checkpoint", "models/tiny: flux", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == ["new/release.yaml", "new/recipe.schema.json"]
    assert json.loads((tmp_path / "new" / "recipe.schema.json").read_text()) == recipe_schema()

    done = _run("check", "new/release.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (checkpoint,) = found["checkpoints"]
    assert len(checkpoint["variants"]) == 3
    assert found["totals"]["variants"] == sum(each["bytes"] for each in checkpoint["variants"])
    assert not (tmp_path / "new" / "out").exists()


def test_init_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "release.yaml").write_text("mine")
    done = _run("init", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "release.yaml: exists; remove it, or choose another name" in done.stderr
    assert (tmp_path / "release.yaml").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [tmp_path / "release.yaml"]
    done = _run("init", "b.yaml", "--checkpoint", "nowhere", cwd=tmp_path)
    assert done.returncode == 3
    assert "nowhere: no such folder or file" in done.stderr
    assert not (tmp_path / "b.yaml").exists()


def test_the_commented_lines_of_the_starter_are_right_as_well(tmp_path: Path) -> None:
    assert _run("init", "--checkpoint", TINY, cwd=tmp_path).returncode == 0
    text = (tmp_path / "release.yaml").read_text()
    for line in ("# components:", "# device:", "# publication:", "#   namespace:", "# executor:"):
        assert line in text
    for block in ("publication:", "executor:"):
        start = text.index(f"# {block}")
        end = text.find("\n\n", start)
        part = text[start : end if end > 0 else None]
        text = text.replace(part, part.replace("\n# ", "\n").removeprefix("# "))
    text = text.replace("# components:", "components:").replace("# device:", "device:")
    done = _run("check", written(tmp_path, text), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + text
    variants = json.loads(done.stdout)["checkpoints"][0]["variants"]
    assert variants[0]["repository"] == "you/tiny-flux-bnb-nf4"


def test_check_shows_a_table_with_what_it_takes(tmp_path: Path) -> None:
    file = written(tmp_path, "checkpoints: [TINY]\nbackends: [gguf-q8_0]\ndevice: cpu\n")
    done = _run("check", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("tiny-flux-gguf-q8_0", "Apache License 2.0", "to write", "memory", "done by"):
        assert word in done.stdout


def test_check_tells_every_problem_with_its_line_and_the_right_exit_code(tmp_path: Path) -> None:
    file = written(tmp_path, HEAD.replace("nf4", "nf5") + "devise: cpu\n")
    done = _run("check", file, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"\n{file}:2: unknown backend 'bnb-nf5'" in done.stderr
    assert f"\n{file}:3: unknown key 'devise'; did you mean device?\n" in done.stderr
    done = _run("check", file, "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert [each["line"] for each in json.loads(done.stdout)["error"]["problems"]] == [2, 3]

    file = written(tmp_path, "checkpoints: [TINY]\nbackends: [torchao-int4]\ndevice: cpu\n")
    assert _run("check", file, cwd=tmp_path).returncode == 4


def test_the_schema_goes_to_stdout_or_to_a_file(tmp_path: Path) -> None:
    assert json.loads(_run("schema", cwd=tmp_path).stdout) == recipe_schema()
    done = _run("schema", "-o", "deep/recipe.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "deep" / "recipe.json").read_text()) == recipe_schema()
