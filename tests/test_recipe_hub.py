"""Checking recipes against a Hub: revisions, sizes from headers, names, rights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_client import USER, commit
from huggingface_hub import HfApi
from recipe_files import TINY, checked, findings
from unreachable import NO_SUCH_NAME

from fluxconv.converters import open_checkpoint, plan, quantize
from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.hub.session import open_session
from fluxconv.hub.source_outline import Outlines
from fluxconv.hub.sources import open_source
from fluxconv.recipes.checking import check, check_file
from fluxconv.recipes.reading import read_recipe

SOURCE = f"{USER}/tiny-flux"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    with running(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture(scope="module")
def source(hub: RehearsalHub) -> str:
    """The tiny Flux as a repository; its commit."""
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo(SOURCE)
    return str(api.upload_folder(repo_id=SOURCE, folder_path=TINY).oid)


@pytest.fixture(autouse=True)
def asked(hub: RehearsalHub, online_client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal Hub is the one that is asked, as its owner."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token)


def _recipe(row: str, more: str = "") -> str:
    return f"checkpoints:\n- {row}\nbackends: [bnb-nf4, gguf-q8_0]\ndevice: cpu\n{more}"


def test_sizes_are_exact_from_headers_alone(source: str, tmp_path: Path) -> None:
    found = checked(tmp_path, _recipe(SOURCE))
    assert not found.problems
    (checkpoint,) = found.checkpoints
    assert checkpoint.revision == source
    whole = open_checkpoint(TINY, source=SOURCE, revision=source)
    planned = [each.nbytes for each in plan(whole, ["bnb-nf4", "gguf-q8_0"])]
    assert [v.plan.nbytes for v in found.variants if v.plan] == planned
    needed = sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file())
    assert found.totals.to_download == checkpoint.download_bytes
    assert 0.9 * needed < checkpoint.download_bytes <= needed
    assert checkpoint.settings is not None
    assert checkpoint.settings.height == 64  # of its own validation.yaml
    assert found.totals.draw_memory


def test_weights_stay_where_they_are(source: str, tmp_path: Path) -> None:
    folder = tmp_path / "outline"
    opened = open_source(SOURCE, download=Outlines(open_session(None, None), folder))
    large = [path for path in opened.files.values() if path.stat().st_size > 4 << 20]
    assert large
    for path in large:
        assert path.stat().st_blocks * 512 < path.stat().st_size / 4


def test_a_revision_that_does_not_exist_is_a_problem_at_its_line(
    source: str, tmp_path: Path
) -> None:
    (said,) = findings(tmp_path, _recipe(f"id: {SOURCE}\n  revision: v9"))
    assert said.startswith(f"3: {SOURCE}: not found")
    (said,) = findings(tmp_path, _recipe(f"{USER}/nothing"))
    assert said.startswith(f"2: {USER}/nothing: not found")


@pytest.mark.parametrize("revision", ["", "\n  revision: main"])
def test_a_revision_that_moved_is_refused_until_one_is_pinned(
    hub: RehearsalHub, tmp_path: Path, revision: str
) -> None:
    api = HfApi(endpoint=hub.url, token=hub.token)
    moving = f"{USER}/moving-flux-{len(revision)}"
    api.create_repo(moving)
    first = str(api.upload_folder(repo_id=moving, folder_path=TINY).oid)
    whole = open_checkpoint(TINY, source=moving, revision=first)
    quantize(replace(whole, name=moving.rpartition("/")[2]), ["bnb-nf4"], tmp_path / "out")

    def text(row: str) -> str:
        return _recipe(f"id: {moving}{row}").replace(", gguf-q8_0", "")

    assert not findings(tmp_path, text(revision))
    second = commit(api, moving, {"NOTICE": b"moved"})
    (said,) = findings(tmp_path, text(revision))
    assert f"has moved from {first} to {second} since" in said
    assert "write one of the two as its `revision:`" in said
    assert said.startswith("3: " if revision else "2: ")

    assert not findings(tmp_path, text(f"\n  revision: {first}"))
    (said,) = findings(tmp_path, text(f"\n  revision: {second}"))
    assert "exists, and its source differ" in said
    (tmp_path / "out" / ".fluxconv-run").mkdir()  # what a run has made, it makes again
    found = checked(tmp_path, text(f"\n  revision: {second}"))
    assert not found.problems
    assert any("will be made again, as its source changed" in each for each in found.remarks)
    assert found.totals.to_write == found.totals.variants


def test_a_base_on_the_hub_is_looked_at_too(source: str, tmp_path: Path) -> None:
    shutil.copytree(TINY / "transformer", tmp_path / "tuned")
    shutil.copy(TINY / "README.md", tmp_path / "tuned")
    found = checked(tmp_path, _recipe(f"{{id: tuned, base: {SOURCE}}}"))
    assert not found.problems
    assert [each.name for each in found.variants] == ["tuned-bnb-nf4", "tuned-gguf-q8_0"]
    (said,) = findings(tmp_path, _recipe(f"{{id: tuned, base: {USER}/no}}"))
    assert f"{USER}/no: not found" in said


def test_names_and_rights_on_the_hub_are_looked_at(
    hub: RehearsalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publication = f"publication:\n  namespace: {USER}\n"
    row = str(TINY)
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo(f"{USER}/tiny-flux-bnb-nf4")
    assert not findings(tmp_path, _recipe(row, publication))

    commit(api, f"{USER}/tiny-flux-bnb-nf4", {"model.bin": b"of somebody else"})
    (said,) = findings(tmp_path, _recipe(row, publication))
    assert "has files that fluxconv did not publish" in said
    assert "`replace: true`" in said
    assert not findings(tmp_path, _recipe(row, publication + "  replace: true\n"))

    (said,) = findings(tmp_path, _recipe(row, "publication:\n  namespace: somebody-else\n"))
    assert said.startswith("6: somebody-else: rehearsal, whose token it is, is no member")
    monkeypatch.setenv("HF_TOKEN", hub.visitor_token)
    (said,) = findings(tmp_path, _recipe(row, publication))
    assert said.startswith("6: ")


def test_a_missing_token_is_told_and_refused_where_the_work_begins(
    no_account_of_this_machine: None,
    hub: RehearsalHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    found = checked(tmp_path, _recipe(str(TINY), "publication: {namespace: me}\n"))
    assert not found.problems
    assert any("no token found" in each for each in found.remarks)
    at_once = check(read_recipe(tmp_path / "release.yaml"), at_once=True)
    (problem,) = at_once.problems
    assert (problem.line, problem.exit_code) == (5, 5)
    # It hides nothing that can be seen without one.
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo(f"{USER}/tiny-flux-bnb-nf4", exist_ok=True)
    commit(api, f"{USER}/tiny-flux-bnb-nf4", {"model.bin": b"of somebody else"})
    checked(tmp_path, _recipe(str(TINY), f"publication: {{namespace: {USER}}}\n"))
    said = [
        each.sentence
        for each in check(read_recipe(tmp_path / "release.yaml"), at_once=True).problems
    ]
    assert len(said) == 2 and "no token" in said[0] + said[1]
    assert "has files that fluxconv did not publish" in said[0] + said[1]


def test_without_a_hub_everything_else_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NO_SUCH_NAME)
    text = "checkpoints: [a/b, c/d, TINY]\nbackends: [bnb-nf4]\ndevice: cpu\n"
    found = checked(tmp_path, text + "publication: {namespace: me}\n")
    assert not found.problems
    assert sum(each.startswith("not looked at: ") for each in found.remarks) == 2
    assert found.totals.variants is None
    assert [each.plan is not None for each in found.variants] == [False, False, True]
    (tmp_path / "release.yaml").write_text(text.replace("TINY", str(TINY)).replace("nf4", "nf5"))
    assert len(check_file(tmp_path / "release.yaml").problems) == 1
