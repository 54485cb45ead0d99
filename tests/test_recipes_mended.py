"""What somebody lost or harmed after a release was made: it is seen beforehand, and made again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_client import USER
from huggingface_hub import constants
from releases import BACKEND, TINY_FLUX, VARIANT, write_recipe

from fluxconv.commands.main import run as fluxconv
from fluxconv.converters import open_variant
from fluxconv.converters.progress import Silent
from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.recipes import run
from fluxconv.validators.thresholds import DEFAULT


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release that was made of a source of its own."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(TINY_FLUX, folder / "tiny-flux")
    run(write_recipe(folder, checkpoints=["tiny-flux"])).require()
    return folder


@pytest.fixture
def made(first: Path, tmp_path: Path) -> Path:
    """A copy of it: its recipe names everything beside itself."""
    return Path(shutil.copytree(first, tmp_path / "release"))


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[RehearsalHub]:
    """A Hub on which nobody else publishes: names of variants are the same in many tests."""
    with running(tmp_path / "hub") as hub:
        yield hub


def to_do(recipe: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, bool | None]:
    assert fluxconv(["run", str(recipe), "--dry-run", "--json"]) == 0
    return {node["id"]: node["to_do"] for node in json.loads(capsys.readouterr().out)["nodes"]}


def test_dry_run_sees_what_is_gone(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(made, checkpoints=["tiny-flux"])
    # The source stands elsewhere now: it has to be looked at, and what then follows is not known.
    planned = to_do(recipe, capsys)
    assert planned.pop("fetch.tiny-flux") is True and set(planned.values()) == {None}
    assert run(recipe).done_now == ("fetch.tiny-flux",)
    assert not any(to_do(recipe, capsys).values())
    shutil.rmtree(made / "out" / VARIANT)
    planned = to_do(recipe, capsys)
    assert planned["quantize.tiny-flux"] and planned[f"validate.{VARIANT}"] is not False
    run(recipe).require()
    assert not any(to_do(recipe, capsys).values())


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_harmed_variant_is_made_again_and_the_others_stay(made: Path, harm: str) -> None:
    other = made / "out" / "tiny-flux-bnb-nf4"
    backends = [BACKEND, "bnb-nf4"]
    recipe = write_recipe(made, checkpoints=["tiny-flux"], backends=backends)
    run(recipe).require()
    before = (other / "fluxconv.json").stat().st_mtime_ns
    weights = made / "out" / VARIANT / "transformer" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.unlink() if harm == "lost" else weights.write_bytes(content[:-1])
    run(recipe).require()
    assert weights.read_bytes() == content
    open_variant(weights.parent.parent).check_hashes(Silent())
    assert (other / "fluxconv.json").stat().st_mtime_ns == before


def test_another_licence_of_the_source_is_heeded(made: Path) -> None:
    readme = made / "tiny-flux" / "README.md"
    text = readme.read_text("utf-8")
    assert "license: apache-2.0" in text
    readme.write_text(text.replace("license: apache-2.0", "license: mit"), "utf-8")
    (made / "tiny-flux" / "LICENSE.md").write_text("MIT, by somebody", "utf-8")
    run(write_recipe(made, checkpoints=["tiny-flux"])).require()
    assert open_variant(made / "out" / VARIANT).manifest.source.metadata["license"] == "mit"
    readme.write_text(text, "utf-8")
    run(write_recipe(made, checkpoints=["tiny-flux"])).require()
    found = open_variant(made / "out" / VARIANT).manifest.source.metadata
    assert found["license"] == "apache-2.0"


def test_nothing_is_called_published_that_was_not(
    made: Path,
    own_hub: RehearsalHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", own_hub.url)
    monkeypatch.setenv("HF_TOKEN", own_hub.token)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    parts: dict[str, Any] = {
        "checkpoints": ["tiny-flux"],
        "publication": {"namespace": USER},
    }
    recipe = str(write_recipe(made, **parts))
    assert fluxconv(["run", recipe, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"]["repositories"]
    text = re.sub(r"psnr_mean: {limit: \d+", "psnr_mean: {limit: 200", DEFAULT.read_text("utf-8"))
    (made / "strict.yaml").write_text(text, "utf-8")
    recipe = str(write_recipe(made, validation={"thresholds": "strict.yaml"}, **parts))
    assert fluxconv(["run", recipe, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["published"] is None and found["error"]["type"] == "CheckFailed"
    place = f"{own_hub.url}/{USER}/{VARIANT}"
    assert found["still_published"] == {VARIANT: place}
    assert fluxconv(["run", recipe]) == 1
    said = capsys.readouterr().err
    assert f"{VARIANT}: not published by this run; what an earlier one published" in said
    # Where others are published, what was before is told as well, until it passes again.
    text = DEFAULT.read_text("utf-8").replace("psnr_mean: {limit: 20,", "psnr_mean: {limit: 200,")
    (made / "strict.yaml").write_text(text, "utf-8")
    parts["backends"] = [BACKEND, "bnb-nf4"]
    recipe = str(write_recipe(made, validation={"thresholds": "strict.yaml"}, **parts))
    assert fluxconv(["run", recipe, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["variants"] for each in found["published"]["repositories"]] == [
        ["tiny-flux-bnb-nf4"]
    ]
    assert found["still_published"] == {VARIANT: place}
    assert (made / found["pages"][0]).is_file()
    assert fluxconv(["run", str(write_recipe(made, **parts)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["still_published"] == {}
