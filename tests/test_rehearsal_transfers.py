"""What goes up to the rehearsal Hub comes down again: each byte, each range, and as git has it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hub_client import CARD, HTTP, MIB, commit, lfs_batch, send, send_commit, sha256
from huggingface_hub import CommitOperationAdd, HfApi, constants, snapshot_download
from huggingface_hub.file_download import http_get

from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.usefixtures("online_client")


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which the client uploads large files."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


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
