"""A push that is killed, stopped, or not alone: the same command goes on where it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pushing import WEIGHTS, Pusher

from fluxconv.converters import Variant, open_variant
from fluxconv.converters.errors import SourceChanged
from fluxconv.hub import Step, push
from fluxconv.hub.rehearsal import Limits, RehearsalHub, running
from fluxconv.hub.rehearsal.faults import Action, Fault, Injected, StalledAnswer, StalledUpload

#: Every row waits for something; together they take minutes.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_account_of_this_machine", "online_client"),
]

COMMIT = "POST /api/models/*/commit/*"
PART = "PUT /_lfs/*"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    """A rehearsal Hub of this module's own, which fails on demand."""
    limits = Limits(multipart_above=1 << 20, part_size=1 << 20)
    with running(tmp_path_factory.mktemp("hub"), limits=limits) as found:
        yield found


@pytest.fixture
def pusher(
    hub: RehearsalHub,
    variant: Variant,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Pusher:
    return Pusher(hub, variant, capsys, tmp_path / "state")


#: Where it stands when it is killed: a request without an answer, before or after it took effect.
MOMENTS: dict[str, tuple[str, Action, str]] = {
    "before looking": ("GET /api/models/*", StalledAnswer(), "xet"),
    "before the repository is made": ("POST /api/repos/create", StalledAnswer(), "xet"),
    "after the repository was made": ("POST /api/repos/create", StalledAnswer(applied=True), "xet"),
    "before the upload": ("POST /api/models/*/preupload/*", StalledAnswer(), "xet"),
    "when Xet begins": ("GET /api/models/*/xet-write-token/*", StalledAnswer(), "xet"),
    "inside a part": (PART, StalledUpload(after_bytes=70_000, seconds=60), "lfs"),
    "after a part": (PART, StalledAnswer(applied=True), "lfs"),
    "before the commit": (COMMIT, StalledAnswer(), "xet"),
    "after the commit": (COMMIT, StalledAnswer(applied=True), "xet"),
    "after the commit, by LFS": (COMMIT, StalledAnswer(applied=True), "lfs"),
    "before the settings": ("PUT /api/models/*/settings", StalledAnswer(), "xet"),
    "after the settings": ("PUT /api/models/*/settings", StalledAnswer(applied=True), "xet"),
    "before the tag": ("POST /api/models/*/tag/*", StalledAnswer(), "xet"),
    "after the tag": ("POST /api/models/*/tag/*", StalledAnswer(applied=True), "xet"),
    "before the collection": ("POST /api/collections", StalledAnswer(), "xet"),
    "after the collection": ("POST /api/collections", StalledAnswer(applied=True), "xet"),
    "before the item": ("POST /api/collections/*/items", StalledAnswer(), "xet"),
    "after the item": ("POST /api/collections/*/items", StalledAnswer(applied=True), "xet"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_push_converges(
    pusher: Pusher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str
) -> None:
    match, action, transport = MOMENTS[moment]
    monkeypatch.setenv("HF_HUB_DISABLE_XET", str(int(transport == "lfs")))
    options = ("--collection", pusher.title)
    with pusher.hub.faults(Fault(match=match, nth=1, times=1, action=action)) as faults:
        process = pusher.start(*options)
        children = _wait_for(faults, process)
        process.kill()
        pusher.refuse_tokens("".join(process.communicate()))
    _wait_until_gone(children)
    assert process.returncode == -9
    assert pusher.is_untouched() or pusher.is_whole()
    if "collection" in moment or "commit" in moment or "part" in moment:
        # As from another machine, which has no journal: what the Hub has is enough.
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    pusher.converges(*options)
    (listed,) = [c for c in pusher.api.list_collections() if c.title == pusher.title]
    assert [item.item_id for item in listed.items] == [pusher.name]


@pytest.mark.parametrize("moment", ["before the commit", "inside a part", "when Xet begins"])
def test_stopped_push_ends_at_once_and_goes_on(
    pusher: Pusher, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    match, action, transport = MOMENTS[moment]
    monkeypatch.setenv("HF_HUB_DISABLE_XET", str(int(transport == "lfs")))
    with pusher.hub.faults(Fault(match=match, nth=1, times=1, action=action)) as faults:
        process = pusher.start()
        children = _wait_for(faults, process)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 5
    pusher.refuse_tokens(out + err)
    assert process.returncode == 130
    assert err.strip() == "fluxconv: interrupted; give the same command again to go on"
    _wait_until_gone(children)
    assert pusher.is_untouched()
    pusher.converges()


def test_two_pushes_on_one_machine_do_not_meet(pusher: Pusher) -> None:
    stall = Fault(match=COMMIT, nth=1, times=1, action=StalledAnswer(seconds=60))
    with pusher.hub.faults(stall) as faults:
        first = pusher.start()
        _wait_for(faults, first)
        second = pusher.run()
        assert second.code == 3 and "another push" in second.sentence
        first.kill()
        first.communicate()
    pusher.converges()


def test_two_pushes_from_two_machines_make_one_commit(
    pusher: Pusher, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = open_variant(shutil.copytree(pusher.variant.root, tmp_path / "copy"))
    other = Pusher(pusher.hub, copy, capsys, tmp_path / "another machine")
    # The first hears nothing of its commit, which never came; meanwhile the second is done.
    stall = Fault(match=COMMIT, nth=1, times=1, action=StalledAnswer(seconds=60))
    with pusher.hub.faults(stall) as faults:
        first = other.start("--timeout", "10", home=other.home)
        _wait_for(faults, first)
        assert pusher.run().code == 0
        said = "".join(first.communicate(timeout=60))
    assert first.returncode == 0, said
    pusher.refuse_tokens(said)
    pusher.converges()


@pytest.mark.parametrize("same_time", [False, True], ids=["plainly", "secretly"])
@pytest.mark.parametrize("transport", ["xet", "lfs"])
@pytest.mark.parametrize("name", [WEIGHTS, "model_index.json"])
def test_file_changed_after_hashing_is_not_published(
    pusher: Pusher, monkeypatch: pytest.MonkeyPatch, name: str, transport: str, same_time: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", transport == "lfs")
    place = pusher.variant.root / name
    before = place.read_bytes()

    def change(step: Step) -> None:
        if step.step == "create":
            times = place.stat()
            place.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
            if same_time:
                os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))

    with pytest.raises(SourceChanged, match=Path(name).name):
        push(
            [pusher.variant],
            "rehearsal",
            token=pusher.hub.token,
            endpoint=pusher.hub.url,
            on_step=change,
        )
    assert pusher.is_untouched()
    place.write_bytes(before)
    pusher.converges()


def _wait_for(faults: Injected, process: subprocess.Popen[str]) -> list[int]:
    """Wait until the fault has struck; returns the processes that the push has started."""
    deadline = time.monotonic() + 120
    while not faults.hits:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(each) for each in children.split()]


def _wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{each}/cmdline").exists() for each in processes):
        assert time.monotonic() < deadline, "the uploading process outlived its parent"
        time.sleep(0.05)
