"""Who may do what in which repositories of the rehearsal Hub, and what it tells of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hub_client import CARD, MIB, api_of, commit, download, send, status_of
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from fluxconv.hub.rehearsal import RehearsalHub, running

pytestmark = pytest.mark.usefixtures("online_client")


# Who is asking -----------------------------------------------------------------------------------


def test_a_token_says_whose_it_is_and_what_it_may_do(hub: RehearsalHub, api: HfApi) -> None:
    me = api.whoami()
    assert (me["name"], me["auth"]["accessToken"]["role"]) == ("rehearsal", "write")
    assert [org["name"] for org in me["orgs"]] == ["rehearsal-org"]
    assert api.whoami(token=hub.read_token)["auth"]["accessToken"]["role"] == "read"


def test_an_unknown_token_is_refused(hub: RehearsalHub, repo: str) -> None:
    stranger = HfApi(endpoint=hub.url, token="hf_unknown")
    assert status_of(stranger.whoami) == 401
    assert status_of(lambda: stranger.model_info(repo)) == 401


def test_a_read_only_token_reads_and_writes_nothing(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    reader = HfApi(endpoint=hub.url, token=hub.read_token)
    before = reader.model_info(repo).sha
    slug = api.create_collection("Read-only sees this").slug
    for write in (
        lambda: reader.create_repo("read-only"),
        lambda: commit(reader, repo, {"a.txt": b"a"}),
        lambda: commit(reader, repo, {"a.bin": os.urandom(MIB)}),
        lambda: reader.create_tag(repo, tag="v1"),
        lambda: reader.update_repo_settings(repo, private=True),
        lambda: reader.delete_repo(repo),
        lambda: reader.create_collection("Read-only"),
        lambda: reader.add_collection_item(slug, repo, "model"),
    ):
        assert status_of(write) == 403
    assert reader.model_info(repo).sha == before


def test_nobody_writes_in_the_namespace_of_others(
    hub: RehearsalHub, api: HfApi, visitor: HfApi, repo: str
) -> None:
    assert status_of(lambda: visitor.create_repo("rehearsal/stolen")) == 403
    assert status_of(lambda: visitor.create_repo("nobody/stolen")) == 403
    assert status_of(lambda: commit(visitor, repo, {"a.txt": b"a"})) == 403
    assert api.create_repo("rehearsal-org/ours").repo_id == "rehearsal-org/ours"
    api.delete_repo("rehearsal-org/ours")


# Repositories ------------------------------------------------------------------------------------


def test_a_new_repository_starts_as_on_the_hub(api: HfApi, repo: str) -> None:
    (only,) = api.list_repo_tree(repo)
    assert (only.path, only.blob_id) == (  # type: ignore[union-attr]
        ".gitattributes",
        "a6344aac8c09253b3b630fb776ae94478aa0275b",  # seen in thousands of model repositories
    )
    assert [c.title for c in api.list_repo_commits(repo)] == ["initial commit"]


def test_an_existing_repository_is_a_conflict_unless_that_is_fine(api: HfApi, repo: str) -> None:
    assert status_of(lambda: api.create_repo(repo)) == 409
    assert api.create_repo(repo, exist_ok=True).repo_id == repo


@pytest.mark.parametrize("name", ["-a", "a--b", "a..b", "a.git", "a b", "a" * 97, "..", "a\\b", ""])
def test_a_bad_repository_name_is_refused(hub: RehearsalHub, name: str) -> None:
    answer = send(hub, "POST", "/api/repos/create", json={"name": name})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_deleted_repository_is_gone_and_its_name_free(
    api: HfApi, repo: str, tmp_path: Path
) -> None:
    commit(api, repo, {"a.txt": b"a"})
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(repo)
    api.create_repo(repo)
    assert not api.file_exists(repo, "a.txt")


def test_model_info_tells_what_the_card_says(api: HfApi, repo: str) -> None:
    sha = commit(api, repo, {"README.md": CARD.encode(), "m.gguf": os.urandom(MIB)})
    info = api.model_info(repo, files_metadata=True, securityStatus=True)
    assert (info.sha, info.author, info.private, info.gated) == (sha, "rehearsal", False, False)
    assert info.card_data is not None
    assert info.card_data.license_name == "flux-1-dev-non-commercial-license"
    assert (info.library_name, info.pipeline_tag) == ("diffusers", "text-to-image")
    assert {
        "gguf",
        "license:other",
        "base_model:quantized:black-forest-labs/FLUX.1-dev",
    } <= set(info.tags or [])
    siblings = {s.rfilename: s for s in info.siblings or []}
    assert siblings["m.gguf"].size == MIB
    assert siblings["m.gguf"].lfs is not None
    assert siblings["README.md"].lfs is None
    assert api.model_info(repo, expand=["sha", "tags"]).sha == sha
    assert api.model_info(repo, expand=["tags"]).sha is None


def test_models_are_listed_by_author_search_and_filter(api: HfApi, repo: str) -> None:
    commit(api, repo, {"README.md": CARD.encode()})
    name = repo.split("/")[1]
    listed = [
        m.id for m in api.list_models(author="rehearsal", search=name, filter="license:other")
    ]
    assert listed == [repo]
    assert repo not in [m.id for m in api.list_models(author="visitor")]


def test_a_private_repository_does_not_exist_for_others(
    api: HfApi, visitor: HfApi, anonymous: HfApi, repo: str, tmp_path: Path
) -> None:
    commit(api, repo, {"a.txt": b"a"})
    assert download(anonymous, repo, "a.txt", tmp_path / "1") == b"a"
    api.update_repo_settings(repo, private=True)
    assert api.model_info(repo).private
    for other, status in ((visitor, 404), (anonymous, 401)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            other.model_info(repo)
        assert caught.value.response.status_code == status
        with pytest.raises(RepositoryNotFoundError):
            download(other, repo, "a.txt", tmp_path / "2")
        assert repo not in [m.id for m in other.list_models(author="rehearsal")]
    api.update_repo_settings(repo, private=False)
    assert not anonymous.model_info(repo).private


def test_a_role_in_an_organisation_decides_who_writes(tmp_path: Path) -> None:
    organizations = ["studio", "watched:read", "written:write"]
    with running(tmp_path / "hub", organizations=organizations) as hub:
        api = api_of(hub)
        roles = {org["name"]: org["roleInOrg"] for org in api.whoami()["orgs"]}
        assert roles == {"studio": "admin", "watched": "read", "written": "write"}
        for name in ("studio/m", "written/m"):
            assert api.create_repo(name).repo_id == name
        assert status_of(lambda: api.create_repo("watched/m")) == 403


def test_a_fine_grained_token_writes_where_it_says(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    fine = HfApi(endpoint=hub.url, token=hub.tokens["fine-grained"])
    token = fine.whoami()["auth"]["accessToken"]
    (scope,) = token["fineGrained"]["scoped"]
    assert (token["role"], scope["entity"]["name"]) == ("fineGrained", "rehearsal")
    assert "repo.write" in scope["permissions"]
    commit(fine, repo, {"a.txt": b"a"})
    assert status_of(lambda: fine.create_repo("rehearsal-org/fine")) == 403


def test_access_by_hand_is_asked_for_and_given(
    hub: RehearsalHub, api: HfApi, visitor: HfApi, repo: str, tmp_path: Path
) -> None:
    commit(api, repo, {"a.txt": b"a"})
    assert status_of(lambda: api.grant_access(repo, "visitor")) == 400
    api.update_repo_settings(repo, gated="manual")
    visiting = {"headers": {"Authorization": f"Bearer {hub.visitor_token}"}}
    assert send(hub, "POST", f"/{repo}/ask-access", **visiting).json() == {"status": "pending"}
    with pytest.raises(GatedRepoError, match="awaiting a review"):
        download(visitor, repo, "a.txt", tmp_path)
    assert status_of(lambda: [*visitor.list_pending_access_requests(repo)]) == 403
    (asked,) = api.list_pending_access_requests(repo)
    assert (asked.username, asked.status) == ("visitor", "pending")
    api.accept_access_request(repo, "visitor")
    assert status_of(lambda: api.accept_access_request(repo, "visitor")) == 404
    assert download(visitor, repo, "a.txt", tmp_path) == b"a"
    api.reject_access_request(repo, request_id=asked.request_id, rejection_reason="No")
    assert [r.username for r in api.list_rejected_access_requests(repo)] == ["visitor"]
    with pytest.raises(GatedRepoError):
        visitor.auth_check(repo)
    api.cancel_access_request(repo, "visitor")
    api.grant_access(repo, "visitor")
    visitor.auth_check(repo)
    assert status_of(lambda: api.accept_access_request(repo, "nobody")) == 404


def test_access_is_given_at_once_where_the_gate_is_automatic(
    hub: RehearsalHub, api: HfApi, visitor: HfApi, repo: str
) -> None:
    api.update_repo_settings(repo, gated="auto")
    with pytest.raises(GatedRepoError):
        visitor.auth_check(repo)
    visiting = {"headers": {"Authorization": f"Bearer {hub.visitor_token}"}}
    assert send(hub, "POST", f"/{repo}/ask-access", **visiting).json() == {"status": "accepted"}
    visitor.auth_check(repo)


def test_a_gated_repository_shows_its_page_and_keeps_its_files(
    api: HfApi, visitor: HfApi, anonymous: HfApi, repo: str, tmp_path: Path
) -> None:
    commit(api, repo, {"a.txt": b"a"})
    api.update_repo_settings(repo, gated="auto")
    for other in (visitor, anonymous):
        assert other.model_info(repo).gated == "auto"
        with pytest.raises(GatedRepoError):
            other.auth_check(repo)
        with pytest.raises(GatedRepoError):
            download(other, repo, "a.txt", tmp_path)
    api.update_repo_settings(repo, gated=False)
    assert download(visitor, repo, "a.txt", tmp_path) == b"a"
