"""Many pushes at once: each ends well, and none takes anything from another."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import USER
from pushing import Pusher
from reported import copied, reported

from fluxconv.converters import Variant, open_variant
from fluxconv.converters.variant import hash_file
from fluxconv.hub.journal import open_journal
from fluxconv.hub.rehearsal import Limits, RehearsalHub, running
from fluxconv.hub.verifying import verify_published

#: Every row waits for something; together they take minutes.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_account_of_this_machine", "online_client"),
]

MANY = 10
#: Bytes that only one of them has, in some parts; everything else they share.
OWN = 5 << 19


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    """A rehearsal Hub of this module's own, which takes large files in parts."""
    limits = Limits(multipart_above=1 << 20, part_size=1 << 20)
    with running(tmp_path_factory.mktemp("hub"), limits=limits) as found:
        yield found


@pytest.mark.parametrize(
    ("machines", "transport"), [("one", "xet"), ("many", "lfs")], ids=["xet", "lfs"]
)
def test_ten_pushes_at_once_lose_nothing(
    hub: RehearsalHub,
    tiny_variants: dict[str, Variant],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machines: str,
    transport: str,
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", str(int(transport == "lfs")))
    title, pushers = f"Many by {transport}", []
    for number in range(MANY):
        variant = _with_own_bytes(
            tiny_variants["torchao-int8"], tmp_path, f"many-{transport}{number}"
        )
        home = tmp_path / "state" / (str(number) if machines == "many" else "")
        pushers.append(Pusher(hub, variant, capsys, home))
    processes = [each.start("--collection", title) for each in pushers]
    said = ["".join(each.communicate(timeout=300)) for each in processes]
    assert [each.returncode for each in processes] == [0] * MANY, "\n".join(said)
    for pusher, text in zip(pushers, said, strict=True):
        pusher.refuse_tokens(text)
        assert pusher.is_complete()
    (listed,) = [c for c in pushers[0].api.list_collections() if c.title == title]
    items = [item.item_id for item in pushers[0].api.get_collection(listed.slug).items]
    assert sorted(items) == sorted(pusher.name for pusher in pushers)
    found = verify_published(listed.slug, contents=True, token=hub.token, endpoint=hub.url)
    assert [each.problems for each in found] == [()] * MANY
    assert {each.name for each in found} == {pusher.variant.name for pusher in pushers}


def test_push_waits_for_another_at_the_same_collection(
    hub: RehearsalHub, variant: Variant, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pusher = Pusher(hub, variant, capsys, tmp_path / "state")
    with open_journal(hub.url, f"{USER}, collection {pusher.title}"):
        process = pusher.start("--collection", pusher.title)
        deadline = time.monotonic() + 120
        while not (pusher.api.repo_exists(pusher.name) and pusher.is_complete()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        assert process.poll() is None
    said = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, said
    (listed,) = [c for c in pusher.api.list_collections() if c.title == pusher.title]
    assert [item.item_id for item in listed.items] == [pusher.name]


def _with_own_bytes(template: Variant, folder: Path, name: str) -> Variant:
    """A copy in a repository of its own, with a large file that no other has."""
    made = copied(template, folder, name=name)
    place = made.root / "transformer" / "own.safetensors"
    place.write_bytes(os.urandom(OWN))
    manifest = json.loads((made.root / "fluxconv.json").read_text("utf-8"))
    manifest["files"]["transformer/own.safetensors"] = hash_file(place).model_dump()
    (made.root / "fluxconv.json").write_text(json.dumps(manifest, indent=2), "utf-8")
    return reported(open_variant(made.root))
