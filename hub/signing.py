"""Signatures: an OpenSSF model-signing bundle over a variant's manifest and all that it names.

`model.sig` is a sigstore bundle that the `model-signing` program verifies too. It is made with an
elliptic-curve key of one's own (P-256, P-384 or P-521, in PEM); nothing is sent anywhere. The
manifest is signed with its files, so source, settings and versions are vouched for as well. Cards
and reports are not: they may be written again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fluxconv.converters.errors import BadInput, CheckFailed, MissingRequirement
from fluxconv.converters.manifest import MANIFEST_NAME, FileRecord
from fluxconv.converters.variant import Variant, hash_file

SIGNATURE = "model.sig"
#: Where the password of an encrypted key is taken from: never from a command line.
PASSWORD = "FLUXCONV_KEY_PASSWORD"
_LARGEST = 8 << 20
_MADE = "made with `openssl ecparam -genkey -name prime256v1 -noout`"


class BadSignature(CheckFailed):
    """A variant is not signed with the key that it should be signed with."""


def sign(variant: Variant, private_key: Path, *, hashed: bool = False) -> Path:
    """Write `model.sig` into the variant's folder; returns its path. One of this key that holds
    already is kept, so that signing again changes nothing.

    Every file is hashed again before it is signed, unless the caller sees to that (`hashed`).
    Raises `NotAVariant` if one differs from the manifest, `BadInput` for a key that cannot be used,
    `MissingRequirement` without the library.
    """
    config, password = signer(private_key)
    from fluxconv.converters.progress import Silent

    if not hashed:
        variant.check_hashes(Silent())
    place = variant.root / SIGNATURE
    if place.is_symlink():
        raise BadInput(f"{place}: is a symbolic link; remove it")
    if place.is_file() and _is_signed_with(variant, private_key, password):
        return place
    partial = place.with_name(f".{SIGNATURE}.partial")
    config.set_hashing_config(_known(signed_files(variant)))
    config.sign(variant.root, partial)
    partial.chmod(0o644)
    partial.replace(place)
    return place


def signer(private_key: Path) -> tuple[Any, bytes | None]:
    """The library's configuration to sign with that key, and the password of the key; raises
    `BadInput` for a key that cannot be used, `MissingRequirement` without the library."""
    signing = _library("signing")
    given = os.environ.get(PASSWORD)
    password = given.encode() if given else None
    try:
        config = signing.Config().use_elliptic_key_signer(
            private_key=private_key, password=password
        )
    except FileNotFoundError:
        raise BadInput(f"{private_key}: no such file; it is to be a private key {_MADE}") from None
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"{private_key}: is no private key to sign with ({_first(error)}); use one {_MADE}, "
            f"and give the password of an encrypted one in {PASSWORD}"
        ) from None
    return config, password


def check_signature(variant: Variant, public_key: Path) -> None:
    """Raise `BadSignature` unless the variant is signed with the key's other half.

    The files are held against the records of the manifest: hash them as well. Raises `BadInput` for
    a key that cannot be used, `MissingRequirement` without the library.
    """
    place = variant.root / SIGNATURE
    if not place.is_file():
        raise BadSignature(f"{variant.name}: is not signed: it has no {SIGNATURE}")
    if place.stat().st_size > _LARGEST:
        raise BadSignature(f"{variant.name}: its {SIGNATURE} is too large to be one")
    verifying = _library("verifying")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{public_key}: is no public key in PEM ({_first(error)})") from None
    config.set_hashing_config(_known(signed_files(variant)))
    try:
        config.verify(variant.root, place)
    except Exception as error:  # noqa: BLE001 - the bundle is a stranger's: whatever it provokes
        raise BadSignature(
            f"{variant.name}: its {SIGNATURE} does not hold: {_first(error)}"
        ) from None


def _is_signed_with(variant: Variant, private_key: Path, password: bytes | None) -> bool:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(private_key.read_bytes(), password)
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    with tempfile.TemporaryDirectory(prefix="fluxconv-") as folder:
        public_key = Path(folder) / "key.pub"
        public_key.write_bytes(key.public_key().public_bytes(encoding, form))
        try:
            check_signature(variant, public_key)
        except BadSignature:
            return False
    return True


def signed_files(variant: Variant) -> dict[str, FileRecord]:
    """What a signature has to cover: the manifest, and every file that it names."""
    manifest = hash_file(variant.root / MANIFEST_NAME)
    return {**variant.manifest.files, MANIFEST_NAME: manifest}


def _known(files: Mapping[str, FileRecord]) -> Any:
    """The library's hashing, with hashes that are known already: 24 GB are not read once more."""
    manifest, digest = _library("manifest"), _library("_hashing.hashing").Digest
    kind = manifest.SerializationType.from_args(
        {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    )

    def hash_model(model_path: Path, *, files_to_hash: object = None) -> Any:
        items = [
            kind.new_item(name, digest("sha256", bytes.fromhex(record.sha256)))
            for name, record in files.items()
        ]
        return manifest.Manifest(Path(model_path).name, items, kind)

    known = _library("hashing").Config()
    known.hash = hash_model
    return known


def _library(module: str) -> Any:
    try:
        return import_module(f"model_signing.{module}")
    except ImportError:
        raise MissingRequirement(
            "signatures need the library model-signing; install it with `pip install "
            "'fluxconv[sign]'`"
        ) from None


def _first(error: BaseException) -> str:
    lines = f"{error}".strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
