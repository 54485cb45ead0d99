"""What the rehearsal Hub promises, asked by the real client.

The client is ``huggingface_hub`` as it is installed, in this process and as ``hf`` in others.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    constants,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from fluxconv.hub.rehearsal import RehearsalHub, create_app, running, serve
from fluxconv.hub.rehearsal.server import ServerError, start

MIB = 1 << 20
HTTP = httpx2.Client(timeout=20, trust_env=False)
CARD = """---
license: other
license_name: flux-1-dev-non-commercial-license
license_link: LICENSE.md
base_model: black-forest-labs/FLUX.1-dev
base_model_relation: quantized
library_name: diffusers
pipeline_tag: text-to-image
tags: [gguf, flux]
---
# A card
"""


@pytest.fixture(autouse=True)
def _client_is_online(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever the environment says: these tests talk to loopback only.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    """One server for all tests that do not stop it."""
    with running(tmp_path_factory.mktemp("rehearsal") / "hub") as hub:
        yield hub


@pytest.fixture
def api(hub: RehearsalHub) -> HfApi:
    """The client, as the owner."""
    return api_of(hub)


@pytest.fixture
def visitor(hub: RehearsalHub) -> HfApi:
    """The client, as somebody else."""
    return HfApi(endpoint=hub.url, token=hub.visitor_token)


@pytest.fixture
def anonymous(hub: RehearsalHub) -> HfApi:
    """The client, without a token."""
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    """A new repository, named after the test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:80].strip("-")
    created = api.create_repo(name.replace("--", "-").replace("--", "-"))
    return str(created.repo_id)


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which the client uploads large files."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


def api_of(hub: RehearsalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def commit(api: HfApi, repo: str, files: dict[str, bytes], **options: Any) -> str:
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    options.setdefault("commit_message", "Add files")
    return str(api.create_commit(repo, operations, **options).oid)


def download(api: HfApi, repo: str, path: str, cache: Path, revision: str | None = None) -> bytes:
    return Path(api.hf_hub_download(repo, path, revision=revision, cache_dir=cache)).read_bytes()


def send(hub: RehearsalHub, method: str, path: str, **options: Any) -> httpx2.Response:
    """A request that the client would never send."""
    headers = {"Authorization": f"Bearer {hub.token}", **options.pop("headers", {})}
    return HTTP.request(method, hub.url + path, headers=headers, **options)


def send_commit(hub: RehearsalHub, repo: str, *lines: Any) -> httpx2.Response:
    header = {"key": "header", "value": {"summary": "by hand"}}
    body = "\n".join(json.dumps(line) for line in (header, *lines))
    return send(hub, "POST", f"/api/models/{repo}/commit/main", content=body)


def status_of(call: Callable[[], Any]) -> int:
    with pytest.raises(HfHubHTTPError) as caught:
        call()
    assert caught.value.response is not None
    return int(caught.value.response.status_code)


# Who is asking -----------------------------------------------------------------------------------


def test_a_token_says_whose_it_is_and_what_it_may_do(hub: RehearsalHub, api: HfApi) -> None:
    me = api.whoami()
    assert (me["name"], me["auth"]["accessToken"]["role"]) == ("rehearsal", "write")
    assert [org["name"] for org in me["orgs"]] == ["rehearsal-org"]
    assert api.whoami(token=hub.read_token)["auth"]["accessToken"]["role"] == "read"


def test_an_unknown_token_is_refused(hub: RehearsalHub, repo: str) -> None:
    stranger = HfApi(endpoint=hub.url, token="hf_unknown")
    assert status_of(stranger.whoami) == 401
    assert status_of(lambda: stranger.model_info(repo)) == 401


def test_a_read_only_token_reads_and_writes_nothing(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    reader = HfApi(endpoint=hub.url, token=hub.read_token)
    before = reader.model_info(repo).sha
    slug = api.create_collection("Read-only sees this").slug
    for write in (
        lambda: reader.create_repo("read-only"),
        lambda: commit(reader, repo, {"a.txt": b"a"}),
        lambda: commit(reader, repo, {"a.bin": os.urandom(MIB)}),
        lambda: reader.create_tag(repo, tag="v1"),
        lambda: reader.update_repo_settings(repo, private=True),
        lambda: reader.delete_repo(repo),
        lambda: reader.create_collection("Read-only"),
        lambda: reader.add_collection_item(slug, repo, "model"),
    ):
        assert status_of(write) == 403
    assert reader.model_info(repo).sha == before


def test_nobody_writes_in_the_namespace_of_others(
    hub: RehearsalHub, api: HfApi, visitor: HfApi, repo: str
) -> None:
    assert status_of(lambda: visitor.create_repo("rehearsal/stolen")) == 403
    assert status_of(lambda: visitor.create_repo("nobody/stolen")) == 403
    assert status_of(lambda: commit(visitor, repo, {"a.txt": b"a"})) == 403
    assert api.create_repo("rehearsal-org/ours").repo_id == "rehearsal-org/ours"
    api.delete_repo("rehearsal-org/ours")


# Repositories ------------------------------------------------------------------------------------


def test_a_new_repository_starts_as_on_the_hub(api: HfApi, repo: str) -> None:
    (only,) = api.list_repo_tree(repo)
    assert (only.path, only.blob_id) == (  # type: ignore[union-attr]
        ".gitattributes",
        "a6344aac8c09253b3b630fb776ae94478aa0275b",  # seen in thousands of model repositories
    )
    assert [c.title for c in api.list_repo_commits(repo)] == ["initial commit"]


def test_an_existing_repository_is_a_conflict_unless_that_is_fine(api: HfApi, repo: str) -> None:
    assert status_of(lambda: api.create_repo(repo)) == 409
    assert api.create_repo(repo, exist_ok=True).repo_id == repo


@pytest.mark.parametrize("name", ["-a", "a--b", "a..b", "a.git", "a b", "a" * 97, "..", "a\\b", ""])
def test_a_bad_repository_name_is_refused(hub: RehearsalHub, name: str) -> None:
    answer = send(hub, "POST", "/api/repos/create", json={"name": name})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_deleted_repository_is_gone_and_its_name_free(
    api: HfApi, repo: str, tmp_path: Path
) -> None:
    commit(api, repo, {"a.txt": b"a"})
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(repo)
    api.create_repo(repo)
    assert not api.file_exists(repo, "a.txt")


def test_model_info_tells_what_the_card_says(api: HfApi, repo: str) -> None:
    sha = commit(api, repo, {"README.md": CARD.encode(), "m.gguf": os.urandom(MIB)})
    info = api.model_info(repo, files_metadata=True, securityStatus=True)
    assert (info.sha, info.author, info.private, info.gated) == (sha, "rehearsal", False, False)
    assert info.card_data is not None
    assert info.card_data.license_name == "flux-1-dev-non-commercial-license"
    assert (info.library_name, info.pipeline_tag) == ("diffusers", "text-to-image")
    assert {
        "gguf",
        "license:other",
        "base_model:quantized:black-forest-labs/FLUX.1-dev",
    } <= set(info.tags or [])
    siblings = {s.rfilename: s for s in info.siblings or []}
    assert siblings["m.gguf"].size == MIB
    assert siblings["m.gguf"].lfs is not None
    assert siblings["README.md"].lfs is None
    assert api.model_info(repo, expand=["sha", "tags"]).sha == sha
    assert api.model_info(repo, expand=["tags"]).sha is None


def test_models_are_listed_by_author_search_and_filter(api: HfApi, repo: str) -> None:
    commit(api, repo, {"README.md": CARD.encode()})
    name = repo.split("/")[1]
    listed = [
        m.id for m in api.list_models(author="rehearsal", search=name, filter="license:other")
    ]
    assert listed == [repo]
    assert repo not in [m.id for m in api.list_models(author="visitor")]


def test_a_private_repository_does_not_exist_for_others(
    api: HfApi, visitor: HfApi, anonymous: HfApi, repo: str, tmp_path: Path
) -> None:
    commit(api, repo, {"a.txt": b"a"})
    assert download(anonymous, repo, "a.txt", tmp_path / "1") == b"a"
    api.update_repo_settings(repo, private=True)
    assert api.model_info(repo).private
    for other, status in ((visitor, 404), (anonymous, 401)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            other.model_info(repo)
        assert caught.value.response.status_code == status
        with pytest.raises(RepositoryNotFoundError):
            download(other, repo, "a.txt", tmp_path / "2")
        assert repo not in [m.id for m in other.list_models(author="rehearsal")]
    api.update_repo_settings(repo, private=False)
    assert not anonymous.model_info(repo).private


def test_a_gated_repository_shows_its_page_and_keeps_its_files(
    api: HfApi, visitor: HfApi, anonymous: HfApi, repo: str, tmp_path: Path
) -> None:
    commit(api, repo, {"a.txt": b"a"})
    api.update_repo_settings(repo, gated="auto")
    for other in (visitor, anonymous):
        assert other.model_info(repo).gated == "auto"
        with pytest.raises(GatedRepoError):
            other.auth_check(repo)
        with pytest.raises(GatedRepoError):
            download(other, repo, "a.txt", tmp_path)
    api.update_repo_settings(repo, gated=False)
    assert download(visitor, repo, "a.txt", tmp_path) == b"a"


# Uploading and downloading -----------------------------------------------------------------------


def test_what_was_uploaded_comes_back_byte_for_byte(
    hub: RehearsalHub, api: HfApi, repo: str, transport: str, tmp_path: Path
) -> None:
    text = b"regular up to ten mebibytes\n" * 400_000
    files = {
        "README.md": CARD.encode(),
        "empty.bin": b"",
        "at the boundary.txt": text[: 10 * MIB],
        "above/the/boundary.txt": text[: 10 * MIB + 1],
        "transformer/model.safetensors": os.urandom(3 * MIB),
        "transformer/copy.safetensors": b"",  # set below: the same content twice
        "tést/ünï 100%.json": b"{}",
    }
    files["transformer/copy.safetensors"] = files["transformer/model.safetensors"]
    folder = tmp_path / "up"
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    operations = [CommitOperationAdd(path, folder / path) for path in files]
    sha = api.create_commit(repo, operations, commit_message="Everything").oid

    down = Path(snapshot_download(repo, endpoint=hub.url, cache_dir=tmp_path / "down"))
    assert down.name == sha
    assert {path: (down / path).read_bytes() for path in files} == files
    entries = {e.path: e for e in api.get_paths_info(repo, list(files))}
    large = {path for path, entry in entries.items() if entry.lfs}  # type: ignore[union-attr]
    assert large == {
        "above/the/boundary.txt",
        "transformer/model.safetensors",
        "transformer/copy.safetensors",
    }
    for path in large:
        lfs = entries[path].lfs  # type: ignore[union-attr]
        assert lfs is not None
        assert (lfs.sha256, lfs.size) == (sha256(files[path]), len(files[path]))
    # Nothing is left of the way by which it came.
    assert not [*(hub.directory / "xet" / repo).glob("*")]
    assert not [*(hub.directory / "tmp").iterdir()]


def test_a_folder_is_uploaded_and_an_unchanged_one_makes_no_commit(
    hub: RehearsalHub, api: HfApi, repo: str, transport: str, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(os.urandom(2 * MIB))
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "skip.log").write_text("no")
    (tmp_path / ".gitignore").write_text("*.log\n")
    first = api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert {".gitignore", "a.txt", "sub/w.bin"} < set(api.list_repo_files(repo))
    assert "skip.log" not in api.list_repo_files(repo)
    # With an ignored file in the folder, the client's LFS path sends a commit without operations.
    (tmp_path / "skip.log").unlink()
    again = api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert again.oid == first.oid
    assert len(api.list_repo_commits(repo)) == 2


def test_a_content_that_the_repository_has_is_not_sent_again(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    data = os.urandom(MIB)
    commit(api, repo, {"w.bin": data})
    (answer,) = lfs_batch(hub, repo, data)
    assert "actions" not in answer
    other = api.create_repo(repo + "-2").repo_id
    (answer,) = lfs_batch(hub, other, data)
    assert answer["actions"]["upload"]["href"]


def test_an_upload_that_is_not_what_was_announced_is_refused(hub: RehearsalHub, repo: str) -> None:
    data = os.urandom(MIB)
    (answer,) = lfs_batch(hub, repo, data)
    actions = answer["actions"]
    href = actions["upload"]["href"]
    for wrong in (os.urandom(MIB), data[:-1], data + b"x", b""):
        assert HTTP.put(href, content=wrong).status_code == 400
    for address in (
        href.replace(f"size={MIB}", f"size={MIB + 1}"),
        href.replace(sha256(data), sha256(b"other")),
        href.partition("?")[0],
    ):
        assert HTTP.put(address, content=data).status_code == 403
    whole = {"oid": sha256(data), "size": len(data)}
    verify = actions["verify"]["href"].removeprefix(hub.url)
    assert send(hub, "POST", verify, json=whole).status_code == 404
    refused = send_commit(
        hub, repo, {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", **whole}}
    )
    assert refused.status_code == 400
    assert "does not exist" in refused.json()["error"]
    assert HTTP.put(href, content=data).status_code == 200
    assert send(hub, "POST", verify, json=whole).status_code == 200
    assert not [*(hub.directory / "tmp").iterdir()]


def test_an_interrupted_download_resumes_where_it_stopped(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    data = os.urandom(3 * MIB)
    commit(api, repo, {"w.bin": data})
    url = f"{hub.url}/{repo}/resolve/main/w.bin"
    file = io.BytesIO()
    file.write(data[:MIB])
    http_get(url, file, resume_size=MIB, expected_size=len(data))
    assert file.getvalue() == data


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("0-0", 0, 1), ("5-", 5, 100), ("-7", 93, 100), ("90-1000", 90, 100), ("-1000", 0, 100)],
)
def test_a_range_of_a_file_is_served(
    hub: RehearsalHub, api: HfApi, asked: str, start: int, end: int
) -> None:
    repo = api.create_repo("ranges", exist_ok=True).repo_id
    data = bytes(range(100))
    commit(api, repo, {"w.bin": data})
    url = f"/{repo}/resolve/main/w.bin"
    answer = send(hub, "GET", url, headers={"Range": f"bytes={asked}"})
    assert answer.content == data[start:end]
    if (start, end) != (0, 100):
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/100"
    head = send(hub, "HEAD", url)
    assert (head.headers["content-length"], head.content) == ("100", b"")
    for impossible in ("100-", "7-3", "-0"):
        refused = send(hub, "GET", url, headers={"Range": f"bytes={impossible}"})
        assert (refused.status_code, refused.headers["content-range"]) == (416, "bytes */100")


def test_raw_gives_what_git_stores(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    data = os.urandom(MIB)
    commit(api, repo, {"w.bin": data, "a.txt": b"a"})
    pointer = send(hub, "GET", f"/{repo}/raw/main/w.bin").text
    assert f"oid sha256:{sha256(data)}\nsize {MIB}\n" in pointer
    assert send(hub, "GET", f"/{repo}/raw/main/a.txt").content == b"a"


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


# Commits and names -------------------------------------------------------------------------------


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


# What must not be believed -----------------------------------------------------------------------

BAD_PATHS = [
    "/etc/passwd",
    "../up.txt",
    "a/../../up.txt",
    "a/./b.txt",
    "a//b.txt",
    "a/",
    "a\\..\\b.txt",
    "C:/x.txt",
    "nul\0.txt",
    "line\nbreak.txt",
    ".git/config",
    "a/.GIT/config",
    "",
    ".",
    "x" * 300,
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=repr)
def test_a_path_that_could_escape_is_refused(hub: RehearsalHub, api: HfApi, path: str) -> None:
    repo = api.create_repo("paths", exist_ok=True).repo_id
    before = api.model_info(repo).sha
    for line in (
        {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}},
        {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": "0" * 64, "size": 1}},
        {"key": "deletedFile", "value": {"path": path}},
        {"key": "copyFile", "value": {"path": path, "srcPath": ".gitattributes"}},
    ):
        assert send_commit(hub, repo, line).status_code == 400
    files = {"files": [{"path": path, "size": 1, "sample": ""}]}
    url = f"/api/models/{repo}/preupload/main"
    assert send(hub, "POST", url, json=files).status_code == 400
    assert api.model_info(repo).sha == before


def test_a_download_never_leaves_the_repository(hub: RehearsalHub, repo: str) -> None:
    for path in (
        "..%2F..%2Fhub.json",
        "%2e%2e/%2e%2e/accounts.json",
        "%2Fetc%2Fpasswd",
        "%00",
        "%ff",
    ):
        for url in (f"/{repo}/resolve/main/{path}", f"/{repo}/resolve/{path}/a.txt"):
            assert send(hub, "GET", url).status_code in (400, 404)
        assert send(hub, "GET", f"/api/models/{path}/x").status_code in (400, 404)
        assert send(hub, "GET", f"/api/collections/{path}/x").status_code in (400, 404)
        assert send(hub, "GET", f"/api/models/{repo}/tree/main/{path}").status_code in (400, 404)
        assert send(hub, "DELETE", f"/api/models/{repo}/tag/{path}").status_code in (400, 404)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a": NaN}',
        b"\xff\xfe",
        b'{"name": "\\ud800", "title": "\\ud800", "tag": "\\ud800"}',
        b"[" * 100_000,
        b'{"name": 1, "organization": [], "title": {}, "item": 3, "objects": {}, "files": "x"}',
        b'{"files": [{"path": "a", "size": -1, "sample": 5}], "objects": [{"oid": 3}], "tag": []}',
        b'{"operation": "upload", "objects": [{"oid": "x", "size": true}]}',
        b'{"key": "header", "value": {"summary": 7}}',
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "file", "value": {"path": 1}}',
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "file"}',
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "unknown", "value": {}}',
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "file", "value":'
        b' {"path": "a", "content": "!", "encoding": "base64"}}',
        b'{"key": "header", "value": {"summary": "x", "parentCommit": "main"}}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_malformed_request_is_the_clients_fault(
    hub: RehearsalHub, api: HfApi, body: bytes
) -> None:
    repo = api.create_repo("malformed", exist_ok=True).repo_id
    slug = api.create_collection("Malformed", exists_ok=True).slug
    before = api.model_info(repo).sha
    for method, path in (
        ("POST", "/api/repos/create"),
        ("DELETE", "/api/repos/delete"),
        ("POST", f"/api/models/{repo}/commit/main"),
        ("POST", f"/api/models/{repo}/preupload/main"),
        ("POST", f"/api/models/{repo}/tag/main"),
        ("POST", f"/{repo}.git/info/lfs/objects/batch"),
        ("POST", f"/{repo}.git/info/lfs/objects/verify"),
        ("POST", "/api/collections"),
        ("POST", f"/api/collections/{slug}/items"),
    ):
        answer = send(hub, method, path, content=body)
        assert 400 <= answer.status_code < 500, (method, path, answer.text)
        assert isinstance(answer.json()["error"], str)
    for method, path in (("GET", "/nothing"), ("PUT", "/api/whoami-v2"), ("GET", "/api/models/x")):
        assert send(hub, method, path).status_code in (404, 405)
    assert api.model_info(repo).sha == before


def test_a_card_with_broken_metadata_is_refused(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    bomb = "---\na: &a [x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
    )
    for text in ("---\na: [\n---\n", "---\n- a\n---\n", "---\na: &b [*b]\n---\n", bomb + "---\n"):
        content = {"content": text, "repoType": "model"}
        answer = send(hub, "POST", "/api/validate-yaml", json=content)
        assert answer.status_code == 400
        assert answer.json()["errors"]
        with pytest.raises((ValueError, BadRequestError)):
            commit(api, repo, {"README.md": text.encode()})
    strange = "---\ndate: 2024-01-01\nn: .nan\n1: x\n---\n"
    commit(api, repo, {"README.md": strange.encode()})
    card: Any = api.model_info(repo).card_data
    assert card.to_dict()["date"] == "2024-01-01"


# Collections -------------------------------------------------------------------------------------


def test_a_collection_lives_through_its_whole_cycle(api: HfApi, visitor: HfApi, repo: str) -> None:
    models = [repo, *(api.create_repo(f"{repo}-{n}").repo_id for n in range(5))]
    made = api.create_collection("Flux variants: all of them!", description="x" * 150)
    assert made.slug.startswith("rehearsal/flux-variants-all-of-them-")
    assert status_of(lambda: api.create_collection(made.title)) == 409
    assert api.create_collection(made.title, exists_ok=True).slug == made.slug
    for model in models:
        api.add_collection_item(made.slug, model, "model", note=f"Note on {model}")
    assert status_of(lambda: api.add_collection_item(made.slug, repo, "model")) == 409
    api.add_collection_item(made.slug, repo, "model", exists_ok=True)
    assert status_of(lambda: api.add_collection_item(made.slug, "no/thing", "model")) == 404

    shown = visitor.get_collection(made.slug)
    assert [item.item_id for item in shown.items] == models
    assert shown.items[0].note == f"Note on {repo}"
    (listed,) = visitor.list_collections(owner="rehearsal", item=f"models/{repo}")
    assert [item.item_id for item in listed.items] == models[:4]

    last = shown.items[-1]
    api.update_collection_item(made.slug, last.item_object_id, note="n" * 500, position=0)
    api.delete_collection_item(made.slug, shown.items[1].item_object_id)
    api.delete_repo(models[2])
    items = api.get_collection(made.slug).items
    assert [i.item_id for i in items] == [models[5], models[0], models[3], models[4]]
    assert [i.position for i in items] == [0, 1, 2, 3]
    assert items[0].note == "n" * 500

    renamed = api.update_collection_metadata(
        made.slug, title="Renamed", description="New", theme="green", private=True
    )
    assert renamed.slug == f"rehearsal/renamed-{made.slug[-24:]}"
    assert api.get_collection(made.slug).title == "Renamed"
    assert status_of(lambda: visitor.get_collection(made.slug)) == 404
    api.delete_collection(made.slug)
    assert status_of(lambda: api.get_collection(made.slug)) == 404
    api.delete_collection(made.slug, missing_ok=True)


def test_the_limits_of_collection_texts_are_the_hubs(api: HfApi, visitor: HfApi, repo: str) -> None:
    slug = api.create_collection("Limits").slug
    item = api.add_collection_item(slug, repo, "model").items[0].item_object_id
    for too_much in (
        lambda: api.create_collection("t" * 61),
        lambda: api.create_collection("d", description="d" * 151),
        lambda: api.update_collection_metadata(slug, description="d" * 151),
        lambda: api.update_collection_metadata(slug, theme="plaid"),
        lambda: api.update_collection_item(slug, item, note="n" * 501),
    ):
        assert status_of(too_much) == 400
    assert status_of(lambda: visitor.delete_collection(slug)) == 403
    assert status_of(lambda: api.delete_collection_item(slug, "0" * 24)) == 404


# Starting, stopping, dying -----------------------------------------------------------------------


def test_everything_is_still_there_after_a_restart_and_after_kill_9(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    data = os.urandom(2 * MIB)
    with running(folder, user="alice", organizations=["studio"]) as hub:
        api = api_of(hub)
        repo = api.create_repo("studio/kept", private=True).repo_id
        sha = commit(api, repo, {"w.bin": data, "a.txt": b"a"})
        api.create_tag(repo, tag="v1")
        slug = api.create_collection("Kept").slug
        api.add_collection_item(slug, repo, "model", note="kept")
        first = hub
    hub = start(folder, port=first.port)
    try:
        assert (hub.url, hub.token) == (first.url, first.token)
        hub.kill()
        (folder / "tmp" / "half-written").write_bytes(b"x")
        hub = start(folder, port=first.port)
        api = api_of(hub)
        assert not (folder / "tmp" / "half-written").exists()
        info = api.model_info(repo, revision="v1")
        assert (info.sha, info.private) == (sha, True)
        assert download(api, repo, "w.bin", tmp_path / "cache") == data
        assert api.get_collection(slug).items[0].note == "kept"
        commit(api, repo, {"b.txt": b"b"}, parent_commit=sha)
    finally:
        hub.kill()


def test_killed_in_the_middle_of_commits_it_serves_a_complete_state(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    hub = start(folder)
    repo, names = api_of(hub).create_repo("victim").repo_id, [f"{n}.bin" for n in range(3)]
    publish = (
        "import os, sys; from huggingface_hub import CommitOperationAdd, HfApi\n"
        "api = HfApi(endpoint=sys.argv[1], token=sys.argv[2])\n"
        "while True:\n"
        "    files = [CommitOperationAdd(name, os.urandom(200_000)) for name in sys.argv[4:]]\n"
        "    print(api.create_commit(sys.argv[3], files, commit_message='x').oid, flush=True)\n"
    )
    for delay in (0.05, 0.13, 0.21):
        command = [sys.executable, "-c", publish, hub.url, hub.token, repo, *names]
        environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        ) as publisher:
            assert publisher.stdout is not None
            acknowledged = [publisher.stdout.readline().decode().strip()]
            time.sleep(delay)
            hub.kill()
            publisher.kill()
            acknowledged += publisher.stdout.read().decode().split()
        hub = start(folder)
        api = api_of(hub)
        history = [c.commit_id for c in api.list_repo_commits(repo)]
        # What was acknowledged is there; at most the one under way came on top of it.
        assert acknowledged[-1] in history[:2]
        assert api.model_info(repo).sha == history[0]
        entries = api.get_paths_info(repo, names)
        assert len(entries) == len(names)
        for entry in entries:
            lfs = entry.lfs  # type: ignore[union-attr]
            assert lfs is not None
            content = send(hub, "GET", f"/{repo}/resolve/main/{entry.path}").content
            assert sha256(content) == lfs.sha256
    hub.stop()


def test_a_folder_has_one_server_and_belongs_to_the_rehearsal_hub(
    hub: RehearsalHub, tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match="already serving"):
        serve(hub.directory)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ServerError, match="not empty"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ServerError, match="cannot listen"):
        serve(tmp_path / "other", port=hub.port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_only_loopback_is_served_unless_asked_for(host: str, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="loopback"):
        serve(tmp_path / "hub", host=host)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from fluxconv.hub.rehearsal.server import start;"
        "print(start(Path(sys.argv[1])).port, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "hub")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        socket.create_connection(("127.0.0.1", port), 5).close()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its parent")


def test_middleware_sees_each_request_first(tmp_path: Path) -> None:
    seen: list[str] = []

    class Fault:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["raw_path"].decode())
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"later"})

    app = create_app(tmp_path / "hub", middleware=[Middleware(Fault)])
    sent: list[Any] = []

    async def request() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        path = "/api/models/a/b/revision/feature%2Fx"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode()}
        await app({**scope, "headers": [], "query_string": b""}, receive, send)

    asyncio.run(request())
    assert seen == ["/api/models/a/b/revision/feature%2Fx"]
    assert sent[0]["status"] == 503


# The whole client, with nothing but HF_ENDPOINT --------------------------------------------------


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


def lfs_batch(hub: RehearsalHub, repo: str, *contents: bytes) -> list[Any]:
    objects = [{"oid": sha256(data), "size": len(data)} for data in contents]
    body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": objects}
    answer = send(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", json=body)
    assert answer.status_code == 200
    return list(answer.json()["objects"])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
