"""Large LFS files go to the rehearsal Hub in parts, sent by the real client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hub_client import HTTP, MIB, api_of, commit, lfs_batch, send, sha256, status_of
from huggingface_hub import HfApi, constants

from fluxconv.hub.rehearsal import Limits, RehearsalHub, running
from fluxconv.hub.rehearsal.faults import Fault, LostReply, ResetUpload, Status, WrongEtag

SMALL = Limits(multipart_above=2 * MIB, part_size=MIB)


@pytest.fixture(autouse=True)
def over_lfs(online_client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    with running(tmp_path_factory.mktemp("parts") / "hub", limits=SMALL) as hub:
        yield hub


@pytest.fixture
def owner(parted: RehearsalHub) -> Iterator[HfApi]:
    parted.admin.forget_requests()
    yield api_of(parted)
    parted.admin.clear()


@pytest.fixture
def target(owner: HfApi, request: pytest.FixtureRequest) -> str:
    name = request.node.name.partition("[")[0][-60:].strip("_")
    return str(owner.create_repo(name, exist_ok=True).repo_id)


def sent(hub: RehearsalHub) -> list[str]:
    """What was done with large contents, in order."""
    return [
        r.target.partition("?")[0].partition("/_lfs/")[2].split("/", 3)[3]
        for r in hub.admin.requests()
        if r.target.count("/") > 4 and r.target.startswith("/_lfs/")
    ]


def parts_of(hub: RehearsalHub, repo: str) -> list[Path]:
    return [*(hub.directory / "uploads" / repo).rglob("*.*")]


def test_a_file_above_the_threshold_is_sent_in_parts(
    parted: RehearsalHub, owner: HfApi, target: str
) -> None:
    files = {
        "small.bin": os.urandom(2 * MIB),
        "whole.bin": os.urandom(3 * MIB),
        "rest.bin": os.urandom(3 * MIB + 7),
    }
    for name, data in files.items():
        commit(owner, target, {name: data})
    assert sent(parted) == [
        *["part/1", "part/2", "part/3", "complete"],
        *["part/1", "part/2", "part/3", "part/4", "complete"],
    ]
    # A part carries no token: its address is signed.
    assert not any(r.authorized for r in parted.admin.requests() if "/part/" in r.target)
    for name, data in files.items():
        assert send(parted, "GET", f"/{target}/resolve/main/{name}").content == data
    assert not parts_of(parted, target)
    assert not [*(parted.directory / "tmp").iterdir()]


def test_a_broken_part_is_sent_again_and_a_lost_completion_asked_again(
    parted: RehearsalHub, owner: HfApi, target: str
) -> None:
    data = os.urandom(4 * MIB)
    parted.faults(
        Fault(match="PUT /_lfs/*/part/2", action=ResetUpload(after_bytes=MIB // 2)),
        Fault(match="PUT /_lfs/*/part/3", action=LostReply()),
        Fault(match="POST /_lfs/*/complete", action=LostReply()),
    )
    commit(owner, target, {"w.bin": data})
    assert sent(parted) == [
        *["part/1", "part/2", "part/2", "part/3", "part/3", "part/4", "complete", "complete"]
    ]
    assert send(parted, "GET", f"/{target}/resolve/main/w.bin").content == data
    assert not parts_of(parted, target)


def test_a_refused_part_ends_the_upload(parted: RehearsalHub, owner: HfApi, target: str) -> None:
    data = os.urandom(3 * MIB)
    refusal = Status(status=403, body="<Error><Code>AccessDenied</Code></Error>")
    parted.faults(Fault(match="PUT /_lfs/*/part/2", action=refusal))
    with pytest.raises(RuntimeError, match="Error while uploading") as caught:
        commit(owner, target, {"w.bin": data})
    assert "403 Forbidden" in str(caught.value.__cause__)
    assert sent(parted) == ["part/1", "part/2"]
    commit(owner, target, {"w.bin": data})
    assert send(parted, "GET", f"/{target}/resolve/main/w.bin").content == data


def test_a_wrong_etag_is_noticed_at_the_end(
    parted: RehearsalHub, owner: HfApi, target: str
) -> None:
    parted.faults(Fault(match="PUT /_lfs/*/part/1", action=WrongEtag()))
    with pytest.raises(RuntimeError) as caught:
        commit(owner, target, {"w.bin": os.urandom(3 * MIB)})
    assert "part 1 was not uploaded with this ETag" in str(caught.value.__cause__)
    assert not owner.file_exists(target, "w.bin")


def test_parts_that_are_not_what_was_announced_are_refused(
    parted: RehearsalHub, target: str
) -> None:
    data = os.urandom(2 * MIB + 1)
    (answer,) = lfs_batch(parted, target, data)
    upload = answer["actions"]["upload"]
    header = upload["header"]
    assert header["chunk_size"] == str(MIB)
    assert HTTP.put(header["00001"], content=data[: MIB - 1]).status_code == 400
    assert HTTP.put(header["00001"].replace("part/1", "part/2"), content=b"").status_code == 403
    wrong = [data[1 : MIB + 1], data[MIB : 2 * MIB], data[2 * MIB :]]
    etags = [
        HTTP.put(header[f"{n:05}"], content=part).headers["etag"] for n, part in enumerate(wrong, 1)
    ]
    assert etags == [f'"{sha256(part)}"' for part in wrong]
    listed = [{"partNumber": n, "etag": etag} for n, etag in enumerate(etags, 1)]

    def complete(parts: list[dict[str, object]]) -> int:
        return HTTP.post(upload["href"], json={"oid": sha256(data), "parts": parts}).status_code

    assert complete(listed) == 400
    assert HTTP.put(header["00001"], content=data[:MIB]).status_code == 200
    listed[0]["etag"] = f'"{sha256(data[:MIB])}"'
    for bad in ([], listed[:2], listed[::-1], [{**listed[0], "etag": "../../x"}, *listed[1:]]):
        assert complete(bad) == 400  # type: ignore[arg-type]
    assert complete(listed) == 200  # type: ignore[arg-type]
    assert complete(listed) == 200  # type: ignore[arg-type]
    assert "actions" not in lfs_batch(parted, target, data)[0]


def test_a_full_account_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path / "hub", limits=Limits(quota=3 * MIB)) as hub:
        api = api_of(hub)
        one, two = (api.create_repo(name).repo_id for name in ("one", "two"))
        commit(api, one, {"w.bin": os.urandom(2 * MIB)})
        assert status_of(lambda: commit(api, two, {"w.bin": os.urandom(2 * MIB)})) == 402
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        assert status_of(lambda: commit(api, two, {"w.bin": os.urandom(2 * MIB)})) == 402
        commit(api, two, {"w.bin": os.urandom(MIB)})
        # Once nothing is left, the Hub refuses the Xet token itself, and hf_xet has its own error.
        with pytest.raises(ConnectionError, match="402 Payment Required"):
            commit(api, two, {"v.bin": os.urandom(MIB)})
        commit(api, two, {"a.txt": b"small files are not counted"})


@pytest.mark.parametrize(
    "mebibytes", [192, pytest.param(1024, marks=pytest.mark.slow)], ids=["192", "1024"]
)
@pytest.mark.parametrize("way", ["whole", "parts", "xet"])
def test_the_servers_memory_does_not_grow_with_the_file(
    way: str, mebibytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", way != "xet")
    limits = Limits(multipart_above=(16 if way == "parts" else 4096) * MIB, part_size=64 * MIB)
    source = tmp_path / "w.bin"
    with source.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
    with running(tmp_path / "hub", limits=limits) as hub:
        api = api_of(hub)
        repo = api.create_repo("large").repo_id
        commit(api, repo, {"warm.bin": os.urandom(MIB)})
        server = psutil.Process(hub.process.pid)
        before = peak(server)
        api.upload_file(path_or_fileobj=source, path_in_repo="w.bin", repo_id=repo)
        with HTTP.stream("GET", f"{hub.url}/{repo}/resolve/main/w.bin") as answer:
            assert sum(len(piece) for piece in answer.iter_raw()) == mebibytes * MIB
        # Xet rebuilds the file with a library that buffers what it reads (see ``xet.py``).
        assert peak(server) - before < (320 if way == "xet" else 48) * MIB


def peak(process: psutil.Process) -> int:
    """The most memory that the process ever had, in bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
