"""What was published, or lies here, is checked again at any time: hashes, structure, report."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import HfApi
from published import published

from fluxconv.commands.main import run
from fluxconv.converters import Variant
from fluxconv.converters.errors import UsageError
from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.hub.verifying import verify_folder, verify_published

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def test_a_whole_folder_is_well(variant: Variant) -> None:
    found = verify_folder(variant.root)
    assert found.is_well and found.report == "passed" and found.signature == "no"
    assert found.files == len(variant.manifest.files) and found.tensors > 100


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ("bytes", "differs from its hash"),
        ("missing", "is missing"),
        ("stray", "is not named"),
        ("report", "is not a report"),
    ],
)
def test_harm_is_named(
    variant: Variant, harm: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = variant.root / WEIGHTS
    if harm == "bytes":
        whole = place.read_bytes()
        place.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "missing":
        place.unlink()
    elif harm == "stray":
        place.with_name("model.safetensors").write_bytes(b"")
    else:
        (variant.root / "report.json").write_text("{}")
    found = verify_folder(variant.root)
    assert any(problem in each for each in found.problems) and not found.is_well
    assert run(["verify", str(variant.root), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)  # one object, with what was found and the error
    assert told["variants"][0]["problems"] and told["error"]["exit_code"] == 1


def test_what_rots_in_storage_is_found_by_reading_it(
    variant: Variant, api: HfApi, hub: RehearsalHub
) -> None:
    repository = published(api, variant)
    sha256 = variant.manifest.files[WEIGHTS].sha256
    (blob,) = (path for path in hub.directory.glob("blobs/*/*") if sha256 in path.name)
    whole = blob.read_bytes()
    blob.chmod(0o644)
    try:
        blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        about = {"endpoint": hub.url, "token": hub.token}
        (unread,) = verify_published(repository, **about)  # type: ignore[arg-type]
        assert unread.is_well  # what the Hub says of itself
        (read,) = verify_published(repository, contents=True, **about)  # type: ignore[arg-type]
        assert [WEIGHTS in each for each in read.problems] == [True]
    finally:
        blob.write_bytes(whole)


def test_command_says_what_it_found(
    variant: Variant,
    api: HfApi,
    hub: RehearsalHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    repository = published(api, variant)
    assert run(["verify", str(variant.root), repository, "--endpoint", hub.url, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["is_well"] for each in answer["variants"]] == [True, True]
    assert run(["verify", str(variant.root), "-q"]) == 0
    assert "read and compared" in capsys.readouterr().out
    assert run(["verify", str(variant.root.parent), "-q"]) == 3
    assert run(["verify", "no-such-thing", "-q"]) == 2
    with pytest.raises(UsageError):
        verify_published("no-such-thing", endpoint=hub.url)
