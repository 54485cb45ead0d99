"""A signature vouches for a variant's manifest and all that it names, wherever it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hub_client import USER
from huggingface_hub import HfApi
from published import published
from reported import copied, reported

from fluxconv.commands.main import run
from fluxconv.converters import Variant
from fluxconv.converters.errors import BadInput, NotAVariant
from fluxconv.hub import download, push
from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.hub.signing import PASSWORD, SIGNATURE, BadSignature, sign
from fluxconv.hub.verifying import verify_folder, verify_published

pytest.importorskip("model_signing.signing", reason="the extra `sign` is not installed")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")

CONFIG = "scheduler/scheduler_config.json"


def key_pair(folder: Path, name: str = "key", password: bytes | None = None) -> tuple[Path, Path]:
    """A private key and its public half, as openssl writes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    form = serialization.PrivateFormat.PKCS8
    kept = serialization.BestAvailableEncryption(password) if password else None
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, kept or serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def test_signature_vouches_for_every_file_and_the_manifest(
    variant: Variant, tmp_path: Path
) -> None:
    private, public = key_pair(tmp_path)
    _, other = key_pair(tmp_path, "other")
    place = sign(variant, private)
    assert place.name == SIGNATURE
    assert verify_folder(variant.root, public_key=public).signature == "valid"
    assert verify_folder(variant.root).signature == "not checked"
    assert verify_folder(variant.root, public_key=other).signature == "broken"
    # A new report or card is no change of what was signed; another manifest is.
    reported(variant, passed=False)
    assert verify_folder(variant.root, public_key=public).signature == "valid"
    manifest = variant.root / "fluxconv.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"device": "cpu"', '"device": "cuda"'))
    assert verify_folder(variant.root, public_key=public).signature == "broken"
    manifest.write_text(text)
    place.write_text(place.read_text().replace("a", "b", 1))
    assert verify_folder(variant.root, public_key=public).signature == "broken"
    place.unlink()
    found = verify_folder(variant.root, public_key=public)
    assert found.signature == "missing" and not found.is_well


def test_the_librarys_own_program_accepts_the_signature(variant: Variant, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    sign(variant, private)
    command = [
        *(sys.executable, "-c", f"import sys; sys.path += {sys.path!r}\n"
          "from model_signing._cli import main; main()"),
        *("verify", "key", str(variant.root), "--signature", str(variant.root / SIGNATURE)),
        *("--public_key", str(public), "--ignore_unsigned_files"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    config = variant.root / CONFIG
    config.write_bytes(config.read_bytes() + b" ")
    assert subprocess.run(command, capture_output=True).returncode != 0


def test_harmed_files_are_not_signed(variant: Variant, tmp_path: Path) -> None:
    private, _ = key_pair(tmp_path)
    config = variant.root / CONFIG
    config.write_bytes(config.read_bytes() + b" ")
    with pytest.raises(NotAVariant, match="differs from its hash"):
        sign(variant, private)
    assert not (variant.root / SIGNATURE).exists()


def test_an_encrypted_key_takes_its_password_from_the_environment(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, password=b"open sesame")
    with pytest.raises(BadInput, match=PASSWORD):
        sign(variant, private)
    monkeypatch.setenv(PASSWORD, "open sesame")
    sign(variant, private)
    assert verify_folder(variant.root, public_key=public).signature == "valid"
    (tmp_path / "no.pem").write_text("nonsense")
    for wrong in (tmp_path / "no.pem", tmp_path / "nowhere", public):
        with pytest.raises(BadInput, match="private key"):
            sign(variant, wrong)
    with pytest.raises(BadInput, match="public key"):
        verify_folder(variant.root, public_key=tmp_path / "no.pem")


def test_downloads_insist_on_the_signature(
    variant: Variant, api: HfApi, hub: RehearsalHub, tmp_path: Path
) -> None:
    private, public = key_pair(tmp_path)
    _, other = key_pair(tmp_path, "other")
    repository, out = published(api, variant), tmp_path / "out"
    with pytest.raises(BadSignature, match="not signed"):
        download(repository, out, public_key=public, endpoint=hub.url, token=hub.token)
    assert not out.exists()
    sign(variant, private)
    published(api, variant)
    with pytest.raises(BadSignature, match="does not hold"):
        download(repository, out, public_key=other, endpoint=hub.url, token=hub.token)
    assert not out.exists()
    for _ in range(2):  # fetched, then found there
        download(repository, out, public_key=public, endpoint=hub.url, token=hub.token)
    with pytest.raises(BadSignature):
        download(repository, out, public_key=other, endpoint=hub.url, token=hub.token)


@pytest.mark.parametrize("backend", ["torchao-int8", "gguf-q8_0"])
def test_a_published_variant_is_checked_where_it_is(
    backend: str, tiny_variants: dict[str, Variant], api: HfApi, hub: RehearsalHub, tmp_path: Path
) -> None:
    private, public = key_pair(tmp_path)
    variant = reported(copied(tiny_variants[backend], tmp_path, name=f"checked-{backend}"))
    sign(variant, private)
    repository = published(api, variant, name=f"checked-{backend}")
    about = {"endpoint": hub.url, "token": hub.token, "public_key": public}
    (found,) = verify_published(repository, **about)  # type: ignore[arg-type]
    assert found.is_well, found.problems
    assert (found.signature, found.report, found.hashed) == ("valid", "passed", "hub")
    assert found.tensors == verify_folder(variant.root).tensors
    (found,) = verify_published(repository, contents=True, **about)  # type: ignore[arg-type]
    assert found.is_well and found.hashed == "contents"
    config = b'{"_class_name": "Other"}'
    api.upload_file(path_or_fileobj=config, path_in_repo=CONFIG, repo_id=repository)
    (found,) = verify_published(repository, **about)  # type: ignore[arg-type]
    assert any(CONFIG in each for each in found.problems)


def test_a_push_takes_the_signature_along(
    variant: Variant, hub: RehearsalHub, tmp_path: Path
) -> None:
    private, public = key_pair(tmp_path)
    about = {"token": hub.token, "endpoint": hub.url}
    assert run(["card", str(variant.root), "--sign", str(private), "-q"]) == 0
    (pushed,) = push([variant], USER, **about).repositories  # type: ignore[arg-type]
    (found,) = verify_published(pushed.name, public_key=public, **about)  # type: ignore[arg-type]
    assert found.signature == "valid"
    (variant.root / SIGNATURE).unlink()
    push([variant], USER, **about)  # type: ignore[arg-type]
    (found,) = verify_published(pushed.name, **about)  # type: ignore[arg-type]
    assert found.signature == "no"


def test_pushes_sign_once(variant: Variant, hub: RehearsalHub, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    other, _ = key_pair(tmp_path, "other")
    about = {"token": hub.token, "endpoint": hub.url}
    push([variant], USER, private_key=private, dry_run=True, **about)  # type: ignore[arg-type]
    assert not (variant.root / SIGNATURE).exists()
    commits = []
    for _ in range(2):  # an elliptic-curve signature is another one every time
        done = push([variant], USER, private_key=private, **about)  # type: ignore[arg-type]
        commits.append(done.repositories[0].commit)
    name = done.repositories[0].name
    assert commits[0] == commits[1]
    (found,) = verify_published(name, public_key=public, **about)  # type: ignore[arg-type]
    assert found.signature == "valid"
    push([variant], USER, private_key=other, **about)  # type: ignore[arg-type]
    (found,) = verify_published(name, public_key=public, **about)  # type: ignore[arg-type]
    assert found.signature == "broken"
