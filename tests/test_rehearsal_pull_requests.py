"""Pull requests and discussions of the rehearsal Hub, as the client makes and merges them."""

from __future__ import annotations

import os

import pytest
from hub_client import MIB, commit, send, status_of
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.community import DiscussionComment, DiscussionCommit, DiscussionStatusChange

from fluxconv.hub.rehearsal import RehearsalHub

pytestmark = pytest.mark.usefixtures("online_client")


@pytest.mark.parametrize("disable_xet", [False, True])
def test_somebody_else_proposes_and_the_owner_merges(
    hub: RehearsalHub,
    api: HfApi,
    visitor: HfApi,
    repo: str,
    disable_xet: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", disable_xet)
    commit(api, repo, {"old.txt": b"old\n", "kept.txt": b"kept\n"})
    before = api.model_info(repo).sha
    data = os.urandom(MIB)
    operations = [
        CommitOperationAdd("w.bin", data),
        CommitOperationAdd("a.txt", b"a\n"),
        CommitOperationDelete("old.txt"),
    ]
    proposed = visitor.create_commit(
        repo, operations, commit_message="Mine", commit_description="Please", create_pr=True
    )
    assert (proposed.pr_num, proposed.pr_revision) == (1, "refs/pr/1")
    assert api.model_info(repo).sha == before
    assert api.model_info(repo, revision="refs/pr/1").sha == proposed.oid
    more = commit(visitor, repo, {"b.txt": b"b\n"}, revision="refs/pr/1")

    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.status, details.author) == ("Mine", "open", "visitor")
    assert (details.target_branch, details.conflicting_files) == ("refs/heads/main", [])
    assert [type(e) for e in details.events] == [DiscussionComment, *[DiscussionCommit] * 2]
    assert [e.oid for e in details.events if isinstance(e, DiscussionCommit)] == [
        proposed.oid,
        more,
    ]
    assert details.diff is not None
    assert "--- a/old.txt\n+++ /dev/null\n" in details.diff
    assert "+++ b/b.txt\n@@ -0,0 +1 @@\n+b\n" in details.diff
    assert status_of(lambda: visitor.merge_pull_request(repo, 1)) == 403

    commit(api, repo, {"kept.txt": b"changed meanwhile\n"})
    api.merge_pull_request(repo, 1)
    merged = api.get_discussion_details(repo, 1)
    newest = api.list_repo_commits(repo)[0]
    assert (merged.status, merged.merge_commit_oid) == ("merged", newest.commit_id)
    assert isinstance(merged.events[-1], DiscussionStatusChange)
    assert newest.title == "Mine (#1)"
    files = {".gitattributes", "a.txt", "b.txt", "kept.txt", "w.bin"}
    assert set(api.list_repo_files(repo)) == files
    assert send(hub, "GET", f"/{repo}/resolve/main/w.bin").content == data
    assert status_of(lambda: commit(visitor, repo, {"c.txt": b""}, revision="refs/pr/1")) == 403
    assert status_of(lambda: api.merge_pull_request(repo, 1)) == 400


def test_a_pull_request_may_start_at_an_old_commit_and_then_conflict(
    api: HfApi, visitor: HfApi, repo: str
) -> None:
    old = commit(api, repo, {"a.txt": b"old"})
    commit(api, repo, {"a.txt": b"new"})
    options = {"create_pr": True, "parent_commit": old}
    pull = visitor.create_commit(
        repo, [CommitOperationAdd("a.txt", b"other")], commit_message="Late", **options
    )
    assert api.get_discussion_details(repo, pull.pr_num or 0).conflicting_files == ["a.txt"]
    assert status_of(lambda: api.merge_pull_request(repo, pull.pr_num or 0)) == 409
    assert api.get_discussion_details(repo, pull.pr_num or 0).status == "open"


def test_a_draft_is_opened_before_it_is_merged(api: HfApi, visitor: HfApi, repo: str) -> None:
    draft = visitor.create_pull_request(repo, "A draft", description="Soon")
    assert (draft.status, draft.git_reference) == ("draft", "refs/pr/1")
    commit(visitor, repo, {"a.txt": b"a"}, revision="refs/pr/1")
    assert status_of(lambda: api.merge_pull_request(repo, 1)) == 400
    visitor.rename_discussion(repo, 1, new_title="Ready")
    visitor.change_discussion_status(repo, 1, "open")
    api.merge_pull_request(repo, 1)
    assert api.list_repo_commits(repo)[0].title == "Ready (#1)"
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert [r.ref for r in refs.pull_requests or []] == ["refs/pr/1"]


def test_discussions_are_listed_and_talked_in(api: HfApi, visitor: HfApi, repo: str) -> None:
    visitor.create_discussion(repo, "A question", description="Why?")
    visitor.create_pull_request(repo, "A proposal")
    api.comment_discussion(repo, 1, "Because.")
    assert [d.num for d in api.get_repo_discussions(repo)] == [2, 1]
    pulls = api.get_repo_discussions(repo, discussion_type="pull_request")
    assert [d.title for d in pulls] == ["A proposal"]
    said = [e.content for e in api.get_discussion_details(repo, 1).events]  # type: ignore[attr-defined]
    assert said == ["Why?", "Because."]
    api.change_discussion_status(repo, 1, "closed", comment="Done")
    assert [d.num for d in api.get_repo_discussions(repo, discussion_status="closed")] == [1]
    assert status_of(lambda: api.get_discussion_details(repo, 7)) == 404


def test_a_proposal_needs_a_token_that_may_write_and_a_repository_that_is_seen(
    hub: RehearsalHub, api: HfApi, visitor: HfApi, repo: str
) -> None:
    reader = HfApi(endpoint=hub.url, token=hub.read_token)
    files = {"a.txt": b"a"}
    assert status_of(lambda: commit(reader, repo, files, create_pr=True)) == 403
    assert status_of(lambda: commit(visitor, repo, files)) == 403
    commit(visitor, repo, files, create_pr=True)
    api.update_repo_settings(repo, private=True)
    assert status_of(lambda: commit(visitor, repo, files, create_pr=True)) == 404


def test_a_refused_proposal_leaves_no_pull_request(
    hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    url = f"/api/models/{repo}/commit/main?create_pr=1"
    lines = (
        '{"key": "header", "value": {"summary": "x"}}\n'
        '{"key": "deletedFile", "value": {"path": "nothing.txt"}}'
    )
    assert send(hub, "POST", url, content=lines).status_code == 404
    assert [*api.get_repo_discussions(repo)] == []
    assert api.list_repo_refs(repo, include_pull_requests=True).pull_requests == []
