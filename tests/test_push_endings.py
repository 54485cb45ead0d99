"""How what was pushed ends up: who sees it, who is asked for consent, its seal, its collection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_client import USER, commits
from huggingface_hub import HfApi, HfFileSystem
from pushing import Pusher, state_of
from reported import copied, reported

from fluxconv.commands.main import run
from fluxconv.converters import Variant
from fluxconv.hub import push
from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.validators.report import image_hashes

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")


@pytest.fixture
def pusher(
    hub: RehearsalHub,
    variant: Variant,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Pusher:
    return Pusher(hub, variant, capsys, tmp_path / "state")


def test_new_repository_is_public_and_sealed_only_when_it_is_verified(
    pusher: Pusher, api: HfApi
) -> None:
    seen: list[tuple[str, bool | None]] = []
    push(
        [pusher.variant],
        USER,
        token=pusher.hub.token,
        endpoint=pusher.hub.url,
        on_step=lambda step: seen.append((step.step, api.model_info(pusher.name).private)),
    )
    assert seen == [
        ("create", True),
        ("commit", True),
        ("verify", True),
        ("settings", False),
        ("tag", False),
    ]


def test_visibility_is_as_asked_and_stays_as_its_owner_has_it(pusher: Pusher, api: HfApi) -> None:
    assert pusher.run("--private").code == 0
    assert api.model_info(pusher.name).private
    assert pusher.run().code == 0
    assert api.model_info(pusher.name).private
    assert pusher.run("--public").code == 0
    assert not api.model_info(pusher.name).private
    api.update_repo_settings(pusher.name, private=True)
    assert pusher.run().code == 0
    assert api.model_info(pusher.name).private
    assert commits(api, pusher.name) == 2


@pytest.mark.parametrize(
    ("licence", "options", "gated"),
    [
        ("apache-2.0", (), False),
        ("apache-2.0", ("--gated", "manual"), "manual"),
        ("dev", (), "auto"),
        ("dev", ("--gated", "off"), False),
    ],
)
def test_consent_is_asked_for_as_the_source_does(
    hub: RehearsalHub,
    api: HfApi,
    tiny_variants: dict[str, Variant],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    licence: str,
    options: tuple[str, ...],
    gated: str | bool,
) -> None:
    metadata = {"license": licence}
    if licence == "dev":
        metadata = {"license": "other", "license_name": "flux-1-dev-non-commercial-license"}
    name = f"consent-{licence.replace('.', '-')}{''.join(options).replace('--', '-')}"
    made = copied(tiny_variants["torchao-int8"], tmp_path, name=name, metadata=metadata)
    (made.root / "LICENSE.md").write_text("The licence.")
    pusher = Pusher(hub, reported(made), capsys, tmp_path / "state")
    ran = pusher.run(*options)
    assert ran.code == 0, ran.err
    assert api.model_info(pusher.name).gated == gated
    # What an owner has made stricter, or the push was told, stays so.
    assert pusher.run().code == 0
    expected = gated if licence != "dev" else "auto"
    assert api.model_info(pusher.name).gated == expected


def test_foreign_files_are_left_alone_without_replace_and_kept_with_it(
    pusher: Pusher, api: HfApi
) -> None:
    api.create_repo(pusher.name, private=True)
    for path in ("model.txt", "model_index.json"):
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo=path, repo_id=pusher.name)
    before = state_of(api, pusher.name)
    refused = pusher.run()
    assert refused.code == 5 and "--replace" in refused.sentence and "model" in refused.sentence
    assert state_of(api, pusher.name) == before
    assert pusher.run("--replace").code == 0
    assert (
        HfFileSystem(endpoint=pusher.hub.url, token=pusher.hub.token).read_text(
            f"{pusher.name}/model.txt"
        )
        == "theirs"
    )
    # It was somebody's private repository: no push makes it public unasked.
    assert api.model_info(pusher.name).private
    assert commits(api, pusher.name) == before[-1] + 1  # type: ignore[operator]


def test_collection_lists_in_order_and_keeps_what_others_put_there(
    hub: RehearsalHub,
    api: HfApi,
    tiny_variants: dict[str, Variant],
    tmp_path: Path,
) -> None:
    title = "In order"
    made = [
        reported(copied(tiny_variants["torchao-int8"], tmp_path, name=f"in-order-{letter}"))
        for letter in "abc"
    ]
    theirs = api.create_repo("in-order-theirs").repo_id
    decoy = api.create_collection(title, namespace=USER, description="Somebody's own.")

    def pushed(*letters: str) -> list[str]:
        chosen = [made["abc".index(letter)] for letter in letters]
        done = push(chosen, USER, collection=title, token=hub.token, endpoint=hub.url)
        assert done.collection is not None and done.collection.slug is not None
        items = api.get_collection(done.collection.slug).items
        return [item.item_id.rpartition("-")[2] for item in items]

    assert pushed("c") == ["c"]
    slug = api.list_collections(owner=USER, item=f"models/{USER}/in-order-c").__next__().slug
    api.add_collection_item(slug, theirs, "model")
    assert pushed("a", "c") == ["a", "theirs", "c"]
    # A new title does not lose it: this machine remembers which one it is.
    api.update_collection_metadata(slug, title="Another title")
    assert pushed("a", "b", "c") == ["a", "theirs", "b", "c"]
    assert api.get_collection(decoy.slug).description == "Somebody's own."


def test_collection_becomes_public_with_what_it_lists_and_stays_otherwise(
    pusher: Pusher, api: HfApi
) -> None:
    title = "Seen by whom"
    slug = api.create_collection(title, namespace=USER, private=True).slug
    for asked, private in (((), True), (("--private",), True), (("--public",), False)):
        assert pusher.run("--collection", title, *asked).code == 0
        assert api.get_collection(slug).private is private
    # What others see in it is not hidden with one repository.
    assert pusher.run("--collection", title, "--private").code == 0
    assert not api.get_collection(slug).private


def test_dry_run_needs_no_token_for_public_things_and_tells_every_file(
    pusher: Pusher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pusher.run("--public").code == 0
    (pusher.variant.root / "images" / "contact-sheet.png").write_bytes(b"another")
    place = pusher.variant.root / "report.json"
    report = json.loads(place.read_text("utf-8"))
    report["images"] = image_hashes(pusher.variant.root)
    place.write_text(json.dumps(report), "utf-8")
    before = state_of(pusher.api, pusher.name)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert run(pusher.arguments("--dry-run", "--json")) == 0
    (repository,) = json.loads(capsys.readouterr().out)["repositories"]
    actions = {each["path"]: each["action"] for each in repository["files"]}
    assert actions["images/contact-sheet.png"] == "send"
    assert actions["transformer/diffusion_pytorch_model.safetensors"] == "there"
    assert all(each["size"] > 0 for each in repository["files"])
    assert repository["uploaded_bytes"] == len(b"another") + place.stat().st_size
    assert run(pusher.arguments("--dry-run")) == 0
    shown = capsys.readouterr().out
    assert f"+ {pusher.name}/images/contact-sheet.png  7 B  (would be sent)" in shown
    assert state_of(pusher.api, pusher.name) == before


def test_json_tells_each_step_on_stderr(pusher: Pusher) -> None:
    ran = pusher.run("--json")
    assert json.loads(ran.out)["repositories"][0]["name"] == pusher.name
    events = [json.loads(line) for line in ran.err.splitlines()]
    assert [each["step"] for each in events if each["event"] == "step"] == [
        "create",
        "commit",
        "verify",
        "settings",
        "tag",
    ]
    uploads = [e for e in events if e["event"] == "start" and e["task"].startswith("Uploading")]
    assert uploads and uploads[0]["total"] > 9_000_000


def test_pull_request_is_one_and_converges(
    pusher: Pusher, api: HfApi, visitor: HfApi, hub: RehearsalHub
) -> None:
    api.create_repo(pusher.name)
    api.upload_file(path_or_fileobj=b"theirs", path_in_repo="model.txt", repo_id=pusher.name)
    head = api.model_info(pusher.name).sha
    for _ in range(2):
        ran = pusher.run("--create-pr", "--json", token=hub.visitor_token)
        assert ran.code == 0, ran.err
        (repository,) = json.loads(ran.out)["repositories"]
        assert repository["pull_request"].endswith(f"{pusher.name}/discussions/1")
    (proposal,) = api.get_repo_discussions(pusher.name)
    assert proposal.is_pull_request and proposal.author == visitor.whoami()["name"]
    files = api.list_repo_files(pusher.name, revision="refs/pr/1")
    assert {"model.txt", "fluxconv.json", *pusher.variant.manifest.files} <= set(files)
    assert api.model_info(pusher.name).sha == head
    assert pusher.run("--create-pr", "--public").code == 2
