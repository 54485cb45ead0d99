"""Asking the rehearsal Hub: through the real client, and by hand what that would never ask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from fluxconv.hub.rehearsal import RehearsalHub

MIB = 1 << 20
USER = "rehearsal"
HTTP = httpx2.Client(timeout=20, trust_env=False)
CARD = """---
license: other
license_name: flux-1-dev-non-commercial-license
license_link: LICENSE.md
base_model: black-forest-labs/FLUX.1-dev
base_model_relation: quantized
library_name: diffusers
pipeline_tag: text-to-image
tags: [gguf, flux]
---
# A card
"""


def api_of(hub: RehearsalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def commit(api: HfApi, repo: str, files: dict[str, bytes], **options: Any) -> str:
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    options.setdefault("commit_message", "Add files")
    return str(api.create_commit(repo, operations, **options).oid)


def commits(api: HfApi, repository: str) -> int:
    return len(api.list_repo_commits(repository))


def download(api: HfApi, repo: str, path: str, cache: Path, revision: str | None = None) -> bytes:
    return Path(api.hf_hub_download(repo, path, revision=revision, cache_dir=cache)).read_bytes()


def send(hub: RehearsalHub, method: str, path: str, **options: Any) -> httpx2.Response:
    """A request that the client would never send."""
    headers = {"Authorization": f"Bearer {hub.token}", **options.pop("headers", {})}
    return HTTP.request(method, hub.url + path, headers=headers, **options)


def send_commit(hub: RehearsalHub, repo: str, *lines: Any) -> httpx2.Response:
    header = {"key": "header", "value": {"summary": "by hand"}}
    body = "\n".join(json.dumps(line) for line in (header, *lines))
    return send(hub, "POST", f"/api/models/{repo}/commit/main", content=body)


def lfs_batch(hub: RehearsalHub, repo: str, *contents: bytes) -> list[Any]:
    objects = [{"oid": sha256(data), "size": len(data)} for data in contents]
    body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": objects}
    answer = send(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", json=body)
    assert answer.status_code == 200
    return list(answer.json()["objects"])


def status_of(call: Callable[[], Any]) -> int:
    with pytest.raises(HfHubHTTPError) as caught:
        call()
    assert caught.value.response is not None
    return int(caught.value.response.status_code)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
