"""Trees, commits and revisions of the rehearsal Hub are those of git."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest
from hub_client import MIB, commit, download, send, status_of
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.usefixtures("online_client")


def test_hashes_are_those_of_git(api: HfApi, repo: str, tmp_path: Path) -> None:
    files = {"a.txt": b"a", "b/c.txt": b"c", "b.txt": b"b", "b/d/e.txt": b"e", "b-/f.txt": b"f"}
    sha = commit(api, repo, files)
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    git = ["git", "-C", str(tmp_path), "-c", "core.autocrlf=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    tree = subprocess.run([*git, "write-tree"], check=True, capture_output=True).stdout.decode()
    listing = subprocess.run(
        [*git, "ls-tree", "-r", "-t", tree.strip()], check=True, capture_output=True
    )
    expected = {
        line.split("\t")[1]: line.split()[2] for line in listing.stdout.decode().splitlines()
    }
    seen = {
        entry.path: getattr(entry, "blob_id", None) or getattr(entry, "tree_id", None)
        for entry in api.list_repo_tree(repo, recursive=True, revision=sha)
    }
    del seen[".gitattributes"]
    assert seen == expected


def test_a_tree_is_listed_folder_by_folder_and_page_by_page(api: HfApi, repo: str) -> None:
    many = {f"many/{n:04}.txt": b"x" for n in range(1001)}
    first = commit(api, repo, many, commit_message="Many")
    second = commit(api, repo, {"a/b/c.txt": b"c", "a/d.txt": b"d"}, commit_message="Few")
    assert {e.path for e in api.list_repo_tree(repo)} == {".gitattributes", "a", "many"}
    assert {e.path for e in api.list_repo_tree(repo, "a")} == {"a/b", "a/d.txt"}
    assert {e.path for e in api.list_repo_tree(repo, "a", recursive=True)} == {
        "a/b",
        "a/b/c.txt",
        "a/d.txt",
    }
    assert {e.path for e in api.list_repo_tree(repo, "many")} == set(many)
    expanded = {e.path: e.last_commit for e in api.list_repo_tree(repo, expand=True)}
    assert {path: last.oid for path, last in expanded.items() if last} == {
        ".gitattributes": api.list_repo_commits(repo)[-1].commit_id,
        "a": second,
        "many": first,
    }
    info = api.get_paths_info(repo, ["a", "a/d.txt", "nothing"], expand=True)
    assert [entry.path for entry in info] == ["a", "a/d.txt"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo, "nothing"))


def test_a_commit_on_an_old_parent_is_refused(api: HfApi, repo: str) -> None:
    old = api.model_info(repo).sha
    new = commit(api, repo, {"a.txt": b"a"}, parent_commit=old)
    stale = lambda: commit(api, repo, {"b.txt": b"b"}, parent_commit=old)  # noqa: E731
    assert status_of(stale) == 412
    assert api.model_info(repo).sha == new
    commit(api, repo, {"b.txt": b"b"}, parent_commit=new[:7])


def test_of_two_commits_on_one_parent_exactly_one_is_made(api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha
    outcomes: list[int] = []

    def attempt(name: str) -> None:
        try:
            commit(api, repo, {name: b"x"}, parent_commit=parent)
            outcomes.append(200)
        except HfHubHTTPError as error:
            outcomes.append(error.response.status_code)

    threads = [threading.Thread(target=attempt, args=(f"{n}.txt",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [200, *[412] * 5]
    assert len(api.list_repo_commits(repo)) == 2


def test_files_are_deleted_copied_and_replaced(api: HfApi, repo: str, tmp_path: Path) -> None:
    large = os.urandom(MIB)
    commit(api, repo, {"a.txt": b"a", "w.bin": large, "old/1.txt": b"1", "old/2.txt": b"2"})
    api.create_commit(
        repo,
        [
            CommitOperationDelete("old/"),
            CommitOperationDelete("a.txt"),
            CommitOperationCopy("w.bin", "moved/w.bin"),
            CommitOperationAdd("old/3.txt", b"3"),
        ],
        commit_message="Rearrange",
        commit_description="In one step",
    )
    files = set(api.list_repo_files(repo))
    assert files == {".gitattributes", "w.bin", "moved/w.bin", "old/3.txt"}
    assert download(api, repo, "moved/w.bin", tmp_path) == large
    newest = api.list_repo_commits(repo)[0]
    assert (newest.title, newest.message) == ("Rearrange", "In one step")
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("nothing.txt", repo)
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_folder("nothing", repo)
    with pytest.raises(BadRequestError):
        commit(api, repo, {"w.bin/inside.txt": b"x"})


def test_a_revision_is_a_branch_a_tag_or_a_hash(api: HfApi, repo: str, tmp_path: Path) -> None:
    one = commit(api, repo, {"a.txt": b"one"})
    api.create_tag(repo, tag="v1.0", tag_message="First")
    api.create_branch(repo, branch="feature/x")
    two = commit(api, repo, {"a.txt": b"two"})
    three = commit(api, repo, {"a.txt": b"three"}, revision="feature/x")
    expected = {"main": b"two", "v1.0": b"one", "feature/x": b"three", one: b"one", two: b"two"}
    expected |= {one[:8]: b"one", "refs/heads/main": b"two"}
    for number, (revision, content) in enumerate(expected.items()):
        assert download(api, repo, "a.txt", tmp_path / str(number), revision) == content
    assert api.model_info(repo, revision="feature/x").sha == three
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert {b.name: b.target_commit for b in refs.branches} == {"main": two, "feature/x": three}
    assert {t.name: (t.ref, t.target_commit) for t in refs.tags} == {
        "v1.0": ("refs/tags/v1.0", one)
    }
    assert status_of(lambda: api.create_tag(repo, tag="v1.0")) == 409
    api.create_tag(repo, tag="v1.0", exist_ok=True)
    assert status_of(lambda: api.create_branch(repo, branch="feature/x")) == 409
    api.delete_tag(repo, tag="v1.0")
    api.delete_branch(repo, branch="feature/x")
    assert status_of(lambda: api.delete_branch(repo, branch="main")) == 403
    for gone in ("v1.0", "feature/x", "0" * 40):
        with pytest.raises(RevisionNotFoundError):
            download(api, repo, "a.txt", tmp_path / "gone", gone)
    for bad in ("../x", "a b", "refs/heads/x", "x.lock", "a..b", "-x"):
        assert status_of(lambda bad=bad: api.create_branch(repo, branch=bad)) == 400  # type: ignore[misc]


def test_history_is_listed_over_several_pages(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    for number in range(52):
        header = {"key": "header", "value": {"summary": f"Number {number}"}}
        url = f"/api/models/{repo}/commit/main"
        assert send(hub, "POST", url, content=json.dumps(header)).status_code == 200
    titles = [c.title for c in api.list_repo_commits(repo)]
    assert titles == [*(f"Number {n}" for n in reversed(range(52))), "initial commit"]


def test_a_missing_file_is_told_apart_from_a_missing_repository(
    api: HfApi, repo: str, tmp_path: Path
) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        download(api, repo, "nothing.txt", tmp_path)
    with pytest.raises(RevisionNotFoundError):
        download(api, repo, "a.txt", tmp_path, "nothing")
    with pytest.raises(RepositoryNotFoundError):
        download(api, "rehearsal/nothing", "a.txt", tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        commit(api, "rehearsal/nothing", {"a.txt": b"a"})
    for missing in ("rehearsal/nothing", "no-namespace"):
        assert not api.repo_exists(missing)
    assert not api.repo_exists(repo, repo_type="dataset")
