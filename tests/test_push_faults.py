"""A push survives what lines and servers do. Every row ends with: old state or the whole new one,
one commit, the right exit code, one sentence, no token, and the same command again converging."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hub_client import commits
from huggingface_hub import constants
from pushing import WEIGHTS, Pusher
from reported import reported

from fluxconv.converters import Variant, open_variant
from fluxconv.hub.rehearsal import Limits, RehearsalHub, running
from fluxconv.hub.rehearsal.faults import (
    Action,
    BrokenXet,
    CorruptedFile,
    CutBody,
    ExpiredToken,
    Fault,
    HostileNames,
    HugeAnswer,
    LostReply,
    Redirect,
    ResetUpload,
    SlowHeaders,
    SneakedCommit,
    StalledAnswer,
    StalledBody,
    StalledUpload,
    Status,
    Trickle,
    WrongEtag,
)

#: Every row waits for something; together they take minutes.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_account_of_this_machine", "online_client"),
]

#: Small, so that the weights of the tiny Flux go in several parts.
LIMITS = Limits(multipart_above=1 << 20, part_size=1 << 20)
COMMIT = "POST /api/models/*/commit/*"
TREE = "GET /api/models/*/tree/*"
PART = "PUT /_lfs/*"
WHOAMI = "GET /api/whoami-v2"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    """A rehearsal Hub of this module's own, which fails on demand."""
    with running(tmp_path_factory.mktemp("hub"), limits=LIMITS) as found:
        yield found


@pytest.fixture
def pusher(
    hub: RehearsalHub,
    variant: Variant,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Pusher:
    return Pusher(hub, variant, capsys, tmp_path / "state")


def use(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", transport == "lfs")


# Every endpoint ----------------------------------------------------------------------------------

#: Every request that a push sends to the Hub, by what it is for.
ENDPOINTS = {
    "whoami": WHOAMI,
    "look": "GET /api/models/*/*",
    "create": "POST /api/repos/create",
    "preupload": "POST /api/models/*/preupload/*",
    "xet token": "GET /api/models/*/xet-write-token/*",
    "lfs batch": "POST /*/info/lfs/objects/batch",
    "part": PART,
    "lfs verify": "POST /*/info/lfs/objects/verify",
    "commit": COMMIT,
    "tree": TREE,
    "settings": "PUT /api/models/*/settings",
    "refs": "GET /api/models/*/refs",
    "tag": "POST /api/models/*/tag/*",
    "collections": "GET /api/collections",
    "new collection": "POST /api/collections",
    "collection": "GET /api/collections/*",
    "item": "POST /api/collections/*/items",
}
LFS = {"lfs batch", "part", "lfs verify"}
#: Asked for when the content is there and verified.
LATE = {"settings", "refs", "tag", "collections", "new collection", "collection", "item"}


@pytest.mark.parametrize(("number", "endpoint"), enumerate(ENDPOINTS))
def test_server_error_once_is_survived(
    pusher: Pusher, monkeypatch: pytest.MonkeyPatch, number: int, endpoint: str
) -> None:
    use("lfs" if endpoint in LFS else "xet", monkeypatch)
    status = (500, 502, 503, 504)[number % 4]
    with pusher.hub.faults(_fault(ENDPOINTS[endpoint], Status(status=status))) as faults:
        ran = pusher.run("--collection", pusher.title, "--timeout", "60")
        assert faults.hits == 1
    assert ran.code == 0, ran.err
    assert pusher.is_complete()
    pusher.converges("--collection", pusher.title)


# Without "lfs verify": what has arrived is not checked again by the next try, which then goes on.
@pytest.mark.parametrize(
    ("number", "endpoint"), enumerate(each for each in ENDPOINTS if each != "lfs verify")
)
def test_server_error_for_ever_ends_in_one_sentence(
    pusher: Pusher, monkeypatch: pytest.MonkeyPatch, number: int, endpoint: str
) -> None:
    use("lfs" if endpoint in LFS else "xet", monkeypatch)
    status = (502, 503, 504, 500)[number % 4]
    with pusher.hub.faults(
        _fault(ENDPOINTS[endpoint], Status(status=status), times=None)
    ) as faults:
        ran = pusher.run("--collection", pusher.title, "--timeout", "2")
        assert faults.hits > 0
    assert ran.code == 5
    assert ran.sentence and ran.seconds < 40
    assert endpoint in LATE or pusher.is_untouched()
    pusher.converges("--collection", pusher.title)


# Every row ---------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A fault; how the push then ends (`old` or `new`), and words of its sentence."""

    match: str
    action: Action
    ends: str
    words: str = ""
    transport: str = "xet"
    nth: int = 1
    times: int | None = 1
    timeout: str | None = None

    @property
    def seconds(self) -> float:
        """Short where it is waited for in vain; else long enough for a machine that is busy."""
        return float(self.timeout or (60 if self.ends == "new" else 3))


ROWS = {
    "commit applied, reply lost by a reset": Row(COMMIT, LostReply(), "new"),
    "commit applied, reply lost by a close": Row(COMMIT, LostReply(orderly=True), "new"),
    "commit applied, reply lost, by LFS": Row(COMMIT, LostReply(), "new", transport="lfs"),
    "commit applied, gateway gives up": Row(COMMIT, Status(status=504, applied=True), "new"),
    "commit applied, then silence": Row(COMMIT, StalledAnswer(applied=True), "new", timeout="8"),
    "repository made, reply lost": Row("POST /api/repos/create", LostReply(), "new"),
    "409 at the creation": Row("POST /api/repos/create", Status(status=409), "new"),
    "tag made, reply lost": Row("POST /api/models/*/tag/*", LostReply(), "new"),
    "settings made, reply lost": Row("PUT /api/models/*/settings", LostReply(), "new"),
    "collection made, reply lost": Row("POST /api/collections", LostReply(), "new"),
    "item added, reply lost": Row("POST /api/collections/*/items", LostReply(), "new"),
    "429 with Retry-After: 9999": Row(
        COMMIT, Status(status=429, headers={"Retry-After": "9999"}), "old", "slow down for 9999 s"
    ),
    "429 with Retry-After: 1": Row(COMMIT, Status(status=429, headers={"Retry-After": "1"}), "new"),
    "429 for a part, with Retry-After: 9999": Row(
        PART, Status(status=429, headers={"Retry-After": "9999"}), "new", transport="lfs"
    ),
    "silence before an answer": Row(TREE, StalledAnswer(), "old", "in time", times=None),
    "silence at the commit": Row(COMMIT, StalledAnswer(), "old", "in time", times=None),
    "silence in the middle of an answer": Row(TREE, StalledBody(), "old", "in time", times=None),
    "answer cut off once": Row(TREE, CutBody(), "new"),
    "answer cut off for ever": Row(TREE, CutBody(), "old", "broke off", times=None),
    "one byte a second": Row(TREE, Trickle(seconds=0.5), "old", "in time", times=None),
    "slow headers": Row(TREE, SlowHeaders(seconds=0.5), "old", "in time", times=None),
    "reset in the middle of a part": Row(PART, ResetUpload(), "new", transport="lfs"),
    "part refused once": Row(PART, Status(status=500), "new", transport="lfs"),
    "part refused for ever": Row(
        PART, Status(status=403), "old", "may not do this", transport="lfs", times=None
    ),
    "part that nobody reads": Row(
        PART, StalledUpload(after_bytes=1000, seconds=60), "old", "", transport="lfs", times=None
    ),
    "part with a wrong ETag": Row(PART, WrongEtag(), "old", "", transport="lfs", times=None),
    "content store that cannot be written": Row(
        "GET /api/models/*/xet-write-token/*", BrokenXet(), "old", "", times=None
    ),
    "silence when Xet begins": Row(
        "GET /api/models/*/xet-write-token/*", StalledAnswer(), "old", "nothing moved", times=None
    ),
    "token expired when Xet begins": Row(
        "GET /api/models/*/xet-write-token/*", ExpiredToken(), "old", "expired"
    ),
    "token expired from the start": Row(WHOAMI, ExpiredToken(), "old", "expired"),
    "token expired before the commit": Row(COMMIT, ExpiredToken(), "old", "expired"),
    "token without rights": Row(
        "POST /api/repos/create", Status(status=403), "old", "may not do this", times=None
    ),
    "quota": Row(COMMIT, Status(status=402), "old", "quota", times=None),
    "quota at the upload": Row(
        "POST /*/info/lfs/objects/batch", Status(status=402), "old", "quota", "lfs", times=None
    ),
    "stored file corrupted": Row(
        COMMIT, CorruptedFile(path=WEIGHTS), "corrupt", f"stored '{WEIGHTS}' wrongly"
    ),
    "answer of 10 GB": Row(TREE, HugeAnswer(), "old", "longer than", times=None),
    "answer of 10 GB, announced": Row(
        WHOAMI, HugeAnswer(announced=True), "old", "longer than", times=None
    ),
    "sent to another host": Row(WHOAMI, Redirect(), "old", "must not go", times=None),
    "sent to another host with the commit": Row(
        COMMIT, Redirect(status=307), "old", "must not go", times=None
    ),
    "names that lead out of the folder": Row(
        TREE, HostileNames(), "old", "impossible name", times=None
    ),
}


@pytest.mark.parametrize("what", ROWS)
def test_fault(pusher: Pusher, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    row = ROWS[what]
    use(row.transport, monkeypatch)
    options = ("--collection", pusher.title)
    fault = _fault(row.match, row.action, nth=row.nth, times=row.times)
    with pusher.hub.faults(fault) as faults:
        ran = pusher.run(*options, "--timeout", str(row.seconds))
        assert faults.hits > 0
    # Within twice the timeout, and what a busy machine itself takes.
    assert ran.seconds < 2 * row.seconds + 30
    count = 2
    if row.ends == "new":
        assert ran.code == 0, ran.err
        assert pusher.is_complete()
    else:
        assert ran.code == 5, ran.err
        assert row.words in ran.sentence
        if row.ends == "old":
            assert pusher.is_untouched()
        else:
            # What is not as it should be is not shown.
            assert pusher.api.model_info(pusher.name).private
            count = 3
    pusher.converges(*options, count=count)


def test_moved_head_is_read_again_and_their_file_stays(pusher: Pusher) -> None:
    _push_older_version(pusher)
    with pusher.hub.faults(_fault(COMMIT, SneakedCommit())) as faults:
        ran = pusher.run()
        assert faults.hits == 1
    assert ran.code == 0, ran.err
    assert pusher.is_complete(count=4)
    assert "sneaked.txt" in pusher.api.list_repo_files(pusher.name)
    pusher.converges(count=4)


def test_moved_head_that_changed_our_files_is_never_overwritten(pusher: Pusher) -> None:
    _push_older_version(pusher)
    theirs = SneakedCommit(files={"fluxconv.json": "{}"})
    with pusher.hub.faults(_fault(COMMIT, theirs)):
        ran = pusher.run()
    assert ran.code == 5
    assert "somebody else changed 'fluxconv.json'" in ran.sentence
    assert commits(pusher.api, pusher.name) == 3  # the Hub's, ours and theirs


def _push_older_version(pusher: Pusher) -> None:
    """Publish the variant, then make it another one."""
    assert pusher.run().code == 0
    place = pusher.variant.root / "fluxconv.json"
    manifest = json.loads(place.read_text())
    manifest["versions"]["torch"] = "0"
    place.write_text(json.dumps(manifest))
    reported(open_variant(pusher.variant.root))


def test_token_never_follows_a_redirect(pusher: Pusher) -> None:
    pusher.hub.admin.forget_requests()
    with pusher.hub.faults(_fault("GET /api/models/*", Redirect(), times=None)):
        assert pusher.run("--timeout", "3").code == 5
    elsewhere = [each for each in pusher.hub.admin.requests() if each.host.startswith("localhost")]
    assert not [each for each in elsewhere if each.authorized]


def test_collection_that_fails_after_all_uploads_says_what_is_done(pusher: Pusher) -> None:
    options = ("--collection", pusher.title)
    with pusher.hub.faults(_fault("POST /api/collections", Status(status=500), times=None)):
        ran = pusher.run(*options, "--timeout", "2")
    assert ran.code == 5 and "all repositories are published" in ran.sentence
    assert pusher.is_complete()
    pusher.converges(*options)


def _fault(match: str, action: Action, nth: int = 1, times: int | None = 1) -> Fault:
    return Fault(match=match, action=action, nth=nth, times=times)
