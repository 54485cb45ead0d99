"""What is never pushed, and what a push says of a token or a server that is no good."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
from hub_client import USER
from huggingface_hub import HfApi
from reported import copied, reported

from fluxconv.converters import Variant
from fluxconv.converters.errors import (
    BadInput,
    CheckFailed,
    HubError,
    HubRefused,
    HubUnreachable,
    MissingLicence,
    NotAVariant,
    UsageError,
)
from fluxconv.hub import download, push
from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.validators import require_passed

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine")


@pytest.mark.parametrize("how", ["none", "failed", "stale"])
def test_unvalidated_variant_is_refused(
    variant: Variant, api: HfApi, hub: RehearsalHub, how: str
) -> None:
    if how == "none":
        (variant.root / "report.json").unlink()
    else:
        reported(variant, passed=how != "failed", manifest_sha256="0" * 64)
    with pytest.raises(CheckFailed):
        push([variant], USER, token=hub.token, endpoint=hub.url)
    assert not api.repo_exists(f"{USER}/{variant.name}")


def test_changed_variant_is_refused(variant: Variant, api: HfApi, hub: RehearsalHub) -> None:
    config = variant.root / "transformer" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(NotAVariant, match=r"config\.json"):
        push([variant], USER, token=hub.token, endpoint=hub.url)
    assert not api.repo_exists(f"{USER}/{variant.name}")


def test_variant_without_licence_is_refused(
    tiny_variants: dict[str, Variant], hub: RehearsalHub, tmp_path: Path
) -> None:
    made = reported(copied(tiny_variants["bnb-nf4"], tmp_path, metadata={}))
    with pytest.raises(MissingLicence):
        push([made], USER, token=hub.token, endpoint=hub.url)


def test_symbolic_link_is_refused(variant: Variant, hub: RehearsalHub, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    sheet = variant.root / "images" / "contact-sheet.png"
    shutil.copy(sheet, secret)
    sheet.unlink()
    sheet.symlink_to(secret)
    with pytest.raises(NotAVariant, match="symbolic link"):
        push([variant], USER, token=hub.token, endpoint=hub.url)


def test_report_cannot_name_files_elsewhere(variant: Variant, hub: RehearsalHub) -> None:
    report = require_passed(variant)
    assert report.pictures is not None
    picture = report.pictures.pictures[0].model_copy(update={"source": "../../secret"})
    pictures = report.pictures.model_copy(update={"pictures": (picture,)})
    reported(variant, pictures=pictures)
    with pytest.raises(BadInput, match="outside images"):
        push([variant], USER, token=hub.token, endpoint=hub.url)


def test_foreign_repository_is_left_alone(variant: Variant, api: HfApi, hub: RehearsalHub) -> None:
    name = f"{USER}/{variant.name}"
    api.create_repo(name)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="model.txt", repo_id=name)
    head = api.model_info(name).sha
    with pytest.raises(HubRefused, match=r"model\.txt"):
        push([variant], USER, token=hub.token, endpoint=hub.url)
    assert api.model_info(name).sha == head


def test_one_variant_twice_is_refused(variant: Variant, hub: RehearsalHub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both"):
        push([variant, copied(variant, tmp_path / "copy")], USER, token=hub.token, endpoint=hub.url)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("none", "hf auth login"),
        ("wrong", "did not accept the token"),
        ("read", "may only read"),
        ("visitor", "no member"),
    ],
)
def test_token_is_checked_first(
    variant: Variant, api: HfApi, hub: RehearsalHub, kind: str, words: str
) -> None:
    tokens = {"none": None, "wrong": "hf_" + "x" * 34, **hub.tokens}
    with pytest.raises(HubRefused, match=words) as caught:
        push([variant], USER, token=tokens[kind], endpoint=hub.url)
    assert "hf_" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (variant.root / "README.md").exists()
    assert not api.repo_exists(f"{USER}/{variant.name}")


def test_dead_endpoint_is_one_sentence(variant: Variant, tmp_path: Path) -> None:
    for endpoint in ("http://127.0.0.1:1", "https://no-such-host.invalid", "not an address"):
        with pytest.raises(HubUnreachable) as caught:
            push([variant], USER, token="hf_secretsecret", endpoint=endpoint)
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(HubUnreachable):
        download(f"{USER}/{variant.name}", tmp_path, endpoint="http://127.0.0.1:1")


def test_silent_endpoint_is_given_up(variant: Variant) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(HubUnreachable, match="in time"):
            push(
                [variant],
                USER,
                token="hf_secretsecret",
                endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}",
                timeout=0.5,
            )
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", HubError),
        (
            b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n"
            b"X-Error-Message: not with Bearer hf_secretsecret, hf_secretsecret\r\n\r\n",
            HubRefused,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", HubError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", HubError),
        (b"", HubUnreachable),
    ],
)
def test_broken_server_is_one_sentence(
    variant: Variant, answer: bytes, error: type[HubError]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(error) as caught:
            push([variant], USER, token="hf_secretsecret", endpoint=address, timeout=1)
        thread.join()
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
