"""What the rehearsal Hub must not believe."""

from __future__ import annotations

from typing import Any

import pytest
from hub_client import commit, send, send_commit
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError

from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.usefixtures("online_client")

BAD_PATHS = [
    "/etc/passwd",
    "../up.txt",
    "a/../../up.txt",
    "a/./b.txt",
    "a//b.txt",
    "a/",
    "a\\..\\b.txt",
    "C:/x.txt",
    "nul\0.txt",
    "line\nbreak.txt",
    ".git/config",
    "a/.GIT/config",
    "",
    ".",
    "x" * 300,
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=repr)
def test_a_path_that_could_escape_is_refused(hub: RehearsalHub, api: HfApi, path: str) -> None:
    repo = api.create_repo("paths", exist_ok=True).repo_id
    before = api.model_info(repo).sha
    for line in (
        {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}},
        {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": "0" * 64, "size": 1}},
        {"key": "deletedFile", "value": {"path": path}},
        {"key": "copyFile", "value": {"path": path, "srcPath": ".gitattributes"}},
    ):
        assert send_commit(hub, repo, line).status_code == 400
    files = {"files": [{"path": path, "size": 1, "sample": ""}]}
    url = f"/api/models/{repo}/preupload/main"
    assert send(hub, "POST", url, json=files).status_code == 400
    assert api.model_info(repo).sha == before


def test_a_download_never_leaves_the_repository(hub: RehearsalHub, repo: str) -> None:
    for path in (
        "..%2F..%2Fhub.json",
        "%2e%2e/%2e%2e/accounts.json",
        "%2Fetc%2Fpasswd",
        "%00",
        "%ff",
    ):
        for url in (f"/{repo}/resolve/main/{path}", f"/{repo}/resolve/{path}/a.txt"):
            assert send(hub, "GET", url).status_code in (400, 404)
        assert send(hub, "GET", f"/api/models/{path}/x").status_code in (400, 404)
        assert send(hub, "GET", f"/api/collections/{path}/x").status_code in (400, 404)
        assert send(hub, "GET", f"/api/models/{repo}/tree/main/{path}").status_code in (400, 404)
        assert send(hub, "DELETE", f"/api/models/{repo}/tag/{path}").status_code in (400, 404)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a": NaN}',
        b"\xff\xfe",
        b'{"name": "\\ud800", "title": "\\ud800", "tag": "\\ud800"}',
        b"[" * 100_000,
        b'{"name": 1, "organization": [], "title": {}, "item": 3, "objects": {}, "files": "x"}',
        b'{"files": [{"path": "a", "size": -1, "sample": 5}], "objects": [{"oid": 3}], "tag": []}',
        b'{"operation": "upload", "objects": [{"oid": "x", "size": true}]}',
        b'{"key": "header", "value": {"summary": 7}}',
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "file", "value": {"path": 1}}',
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "file"}',
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "unknown", "value": {}}',
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "file", "value":'
        b' {"path": "a", "content": "!", "encoding": "base64"}}',
        b'{"key": "header", "value": {"summary": "x", "parentCommit": "main"}}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_malformed_request_is_the_clients_fault(
    hub: RehearsalHub, api: HfApi, body: bytes
) -> None:
    repo = api.create_repo("malformed", exist_ok=True).repo_id
    slug = api.create_collection("Malformed", exists_ok=True).slug
    before = api.model_info(repo).sha
    for method, path in (
        ("POST", "/api/repos/create"),
        ("DELETE", "/api/repos/delete"),
        ("POST", f"/api/models/{repo}/commit/main"),
        ("POST", f"/api/models/{repo}/preupload/main"),
        ("POST", f"/api/models/{repo}/tag/main"),
        ("POST", f"/{repo}.git/info/lfs/objects/batch"),
        ("POST", f"/{repo}.git/info/lfs/objects/verify"),
        ("POST", "/api/collections"),
        ("POST", f"/api/collections/{slug}/items"),
    ):
        answer = send(hub, method, path, content=body)
        assert 400 <= answer.status_code < 500, (method, path, answer.text)
        assert isinstance(answer.json()["error"], str)
    for method, path in (("GET", "/nothing"), ("PUT", "/api/whoami-v2"), ("GET", "/api/models/x")):
        assert send(hub, method, path).status_code in (404, 405)
    assert api.model_info(repo).sha == before


def test_a_card_with_broken_metadata_is_refused(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    bomb = "---\na: &a [x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
    )
    for text in ("---\na: [\n---\n", "---\n- a\n---\n", "---\na: &b [*b]\n---\n", bomb + "---\n"):
        content = {"content": text, "repoType": "model"}
        answer = send(hub, "POST", "/api/validate-yaml", json=content)
        assert answer.status_code == 400
        assert answer.json()["errors"]
        with pytest.raises((ValueError, BadRequestError)):
            commit(api, repo, {"README.md": text.encode()})
    strange = "---\ndate: 2024-01-01\nn: .nan\n1: x\n---\n"
    commit(api, repo, {"README.md": strange.encode()})
    card: Any = api.model_info(repo).card_data
    assert card.to_dict()["date"] == "2024-01-01"
