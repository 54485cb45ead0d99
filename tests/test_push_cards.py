"""What a push does to cards and pictures that somebody else had a hand in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_client import USER
from huggingface_hub import HfApi

from fluxconv.cards.readme import END
from fluxconv.cards.writing import README
from fluxconv.converters import Variant
from fluxconv.converters.errors import CheckFailed, HubRefused, UsageError
from fluxconv.hub import download, push
from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.hub.verifying import verify_folder, verify_published

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")


def edit_on_the_hub(api: HfApi, repository: str, words: str) -> None:
    text = Path(api.hf_hub_download(repository, README, force_download=True)).read_text("utf-8")
    api.upload_file(
        path_or_fileobj=f"{text.split(END)[0]}{END}\n\n{words}\n".encode(),
        path_in_repo=README,
        repo_id=repository,
    )


def card(api: HfApi, repository: str) -> str:
    return Path(api.hf_hub_download(repository, README, force_download=True)).read_text("utf-8")


def test_words_written_on_the_hub_or_here_are_never_lost(
    variant: Variant, api: HfApi, hub: RehearsalHub
) -> None:
    def again() -> str:
        (done,) = push([variant], USER, token=hub.token, endpoint=hub.url).repositories
        return done.name

    repository, here = again(), variant.root / README
    for words in ("First words.", "Second words."):  # the second ones replace words of both sides
        edit_on_the_hub(api, repository, words)
        again()
        assert words in card(api, repository) and words in here.read_text("utf-8")
    assert "First words." not in card(api, repository)
    here.write_text(here.read_text("utf-8").replace("Second", "Third"), "utf-8")
    again()
    assert "Third words." in card(api, repository)
    edit_on_the_hub(api, repository, "From the Hub.")
    here.write_text(here.read_text("utf-8").replace("Third words.", "From here."), "utf-8")
    before = api.model_info(repository).sha
    with pytest.raises(HubRefused, match="was edited on the Hub, and"):
        again()
    assert api.model_info(repository).sha == before
    here.write_text(
        here.read_text("utf-8").replace("From here.", "From here.\n\nFrom the Hub."), "utf-8"
    )
    # As one block it stands in ours: both are kept.
    again()
    assert "From here." in card(api, repository) and "From the Hub." in card(api, repository)


def test_only_the_pictures_that_were_measured_are_published(
    variant: Variant, hub: RehearsalHub, tmp_path: Path
) -> None:
    picture = variant.root / "images/00-0-variant.png"
    measured = picture.read_bytes()
    about = {"token": hub.token, "endpoint": hub.url}
    picture.write_text("root:x:0:0")
    with pytest.raises(CheckFailed, match=r"00-0-variant\.png: is not the picture"):
        push([variant], USER, **about)  # type: ignore[arg-type]
    (problem,) = verify_folder(variant.root).problems
    assert "00-0-variant.png" in problem
    picture.write_bytes(measured)
    (variant.root / "images/01-0-variant.png").write_text("not named by the report")
    (done,) = push([variant], USER, **about).repositories  # type: ignore[arg-type]
    assert "images/01-0-variant.png" not in [file.path for file in done.files]
    (found,) = verify_published(done.name, **about)  # type: ignore[arg-type]
    assert found.is_well, found.problems


def test_a_picture_exchanged_on_the_hub_is_noticed(
    variant: Variant, api: HfApi, hub: RehearsalHub
) -> None:
    (done,) = push([variant], USER, token=hub.token, endpoint=hub.url).repositories
    api.upload_file(path_or_fileobj=b"x", path_in_repo="images/00-0-source.png", repo_id=done.name)
    (found,) = verify_published(done.name, token=hub.token, endpoint=hub.url)
    assert ["00-0-source.png" in problem for problem in found.problems] == [True]


def test_an_address_of_another_hub_is_refused(hub: RehearsalHub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--endpoint https://huggingface\.co"):
        download("https://huggingface.co/a/b", tmp_path, endpoint=hub.url, token=hub.token)


@pytest.mark.parametrize(
    ("endpoint", "token", "said"),
    [
        ("http://example.invalid", "hf_secret", "clear text"),
        ("https://example.invalid", "hf_ünï", "characters that no token has"),
        ("https://example.invalid", "hf_a b", "characters that no token has"),
    ],
)
def test_tokens_are_looked_at_before_they_travel(
    variant: Variant, endpoint: str, token: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        push([variant], USER, endpoint=endpoint, token=token)
    assert token not in str(caught.value)


def test_a_folder_given_twice_is_said_plainly(variant: Variant, hub: RehearsalHub) -> None:
    with pytest.raises(UsageError, match="is given twice"):
        push([variant, variant], USER, token=hub.token, endpoint=hub.url)


def test_a_repository_deleted_after_its_upload_is_filled_again(
    variant: Variant, api: HfApi, hub: RehearsalHub
) -> None:
    about = {"token": hub.token, "endpoint": hub.url}
    commit = "POST /api/models/*/commit/*"
    from fluxconv.hub.rehearsal.faults import Fault, Status

    with (
        hub.faults(Fault(match=commit, action=Status(status=403))),
        pytest.raises(HubRefused),
    ):
        push([variant], USER, **about)  # type: ignore[arg-type]
    repository = f"{USER}/{variant.name}"
    api.delete_repo(repository)
    (done,) = push([variant], USER, **about).repositories  # type: ignore[arg-type]
    assert done.name == repository and done.commit == api.model_info(repository).sha
