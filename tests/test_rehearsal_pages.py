"""The rehearsal Hub's pages: who sees what, where things lead, and that nothing runs in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from hostile_card import COMMIT, NAMES, SVG, Elements, hostile_files
from hub_client import CARD, USER, api_of, commit, sha256
from huggingface_hub import CommitOperationAdd, HfApi

from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.hub.rehearsal.pages import owner_address

pytestmark = pytest.mark.usefixtures("online_client")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def public(hub: RehearsalHub) -> Iterator[httpx2.Client]:
    """A browser without a sign-in."""
    with httpx2.Client(base_url=hub.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def owner(hub: RehearsalHub) -> Iterator[httpx2.Client]:
    """A browser that opened the owner's address."""
    options = {"base_url": hub.url, "trust_env": False, "timeout": 20}
    with httpx2.Client(follow_redirects=True, **options) as client:
        answer = client.get(owner_address(hub.directory, hub.url))
        assert answer.status_code == 200 and str(answer.url) == f"{hub.url}/"
        yield client


# Who sees what -----------------------------------------------------------------------------------


def test_private_is_for_the_owner_only(
    public: httpx2.Client, owner: httpx2.Client, api: HfApi, repo: str
) -> None:
    commit(api, repo, {"README.md": CARD.encode(), "x.png": b"x", "x.bin": b"\0x"})
    collection = api.create_collection(title="Mine alone", private=True).slug
    api.update_repo_settings(repo, private=True)
    kinds = ("", "/tree/main", "/commits/main", "/commit/main", "/blob/main/x.png")
    addresses = [f"/{repo}{kind}" for kind in kinds]
    addresses += [f"/-/file/{repo}/main/x.png", f"/collections/{collection}"]
    for address in addresses:
        assert owner.get(address).status_code == 200, address
        assert public.get(address).status_code == 404, address
        # What is private and what does not exist look alike.
        nowhere = re.sub(r"[0-9a-f]{24}$", "0" * 24, address.replace(repo, f"{USER}/nowhere"))
        unseen, none = (public.get(each).text.replace(each, "") for each in (address, nowhere))
        assert unseen == none, address
    for listing in ("/", f"/{USER}"):
        shown = owner.get(listing).text
        assert "Mine alone" in shown and f'href="/{repo}"' in shown
        assert repo not in public.get(listing).text and "Mine alone" not in public.get(listing).text


def test_files_behind_a_gate_are_for_the_owner_only(
    public: httpx2.Client, owner: httpx2.Client, api: HfApi, repo: str
) -> None:
    card = "---\nextra_gated_heading: Please agree\n---\n# Seen by all\n![A picture](x.png)"
    commit(api, repo, {"README.md": card.encode(), "x.png": b"x", "secret.txt": b"unseen"})
    api.update_repo_settings(repo, gated="manual")
    address, picture = f"/{repo}", f"/-/file/{repo}/main/x.png"
    for client, seen in ((public, False), (owner, True)):
        page = client.get(address).text
        assert "Please agree" in page and "Seen by all" in page
        assert (picture in page) is seen
        assert (client.get(picture).status_code == 200) is seen
        assert ("unseen" in client.get(f"/{repo}/blob/main/secret.txt").text) is seen
        assert ("?download=true" in client.get(f"/{repo}/tree/main").text) is seen
    assert public.get(picture).status_code == 401


def test_visitor_asks_at_the_gate_and_is_let_in(
    hub: RehearsalHub, public: httpx2.Client, api: HfApi, repo: str
) -> None:
    commit(api, repo, {"x.png": b"x"})
    api.update_repo_settings(repo, gated="manual")
    assert "To agree, sign in" in public.get(f"/{repo}").text
    public.post("/-/sign-in", data={"token": hub.visitor_token})
    assert f'action="/-/ask/{repo}"' in public.get(f"/{repo}").text
    assert public.post(f"/-/ask/{repo}").headers["location"] == f"/{repo}"
    assert "has not let you in yet" in public.get(f"/{repo}").text
    assert public.get(f"/-/file/{repo}/main/x.png").status_code == 403
    api.accept_access_request(repo, "visitor")
    assert "have been let in" in public.get(f"/{repo}").text
    assert public.get(f"/-/file/{repo}/main/x.png").content == b"x"


def test_owner_looks_as_the_public_and_back(owner: httpx2.Client, api: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, private=True)
    here = {"here": f"/{repo}"}
    assert owner.get(f"/{repo}").status_code == 200
    seen = owner.post("/-/look", data={"as": "public", **here})
    assert seen.status_code == 404 and "what everybody would see" in seen.text
    assert repo not in owner.get("/").text
    assert owner.post("/-/look", data={"as": "owner", **here}).status_code == 200
    assert owner.post("/-/look", data={"as": "nobody", **here}).status_code == 404
    assert owner.post("/-/look", data={"as": "owner", **here}).status_code == 404


def test_token_signs_in_and_stands_nowhere(
    public: httpx2.Client, hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    api.update_repo_settings(repo, private=True)
    refused = public.post("/-/sign-in", data={"token": "hf_wrong", "here": f"/{repo}"})
    assert refused.status_code == 403 and "set-cookie" not in refused.headers
    answer = public.post("/-/sign-in", data={"token": hub.token, "here": f"/{repo}"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/{repo}")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert public.get(f"/{repo}").status_code == 200
    everything = [cookie, owner_address(hub.directory, hub.url), public.get(f"/{repo}").text]
    assert not any(token in text for token in hub.tokens.values() for text in everything)
    # The key opens pages, and not the API.
    key = cookie.split("=")[1].split(";")[0]
    private = httpx2.get(
        f"{hub.url}/api/models/{repo}",
        headers={"Cookie": cookie, "Authorization": f"Bearer {key}"},
        trust_env=False,
    )
    assert private.status_code == 401


def test_another_user_signs_in_and_sees_no_more_than_they_may(
    public: httpx2.Client, hub: RehearsalHub, api: HfApi, repo: str
) -> None:
    api.update_repo_settings(repo, private=True)
    public.post("/-/sign-in", data={"token": hub.visitor_token})
    assert "You look as <b>visitor</b>" in public.get("/").text
    assert public.get(f"/{repo}").status_code == 404


@pytest.mark.parametrize(
    "here", ["//other.invalid", "/\\other.invalid", "https://other.invalid", "", "javascript:x"]
)
def test_no_form_leads_to_another_host(here: str, owner: httpx2.Client) -> None:
    answer = owner.post("/-/look", data={"as": "public", "here": here}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_wrong_key_is_nobody(public: httpx2.Client) -> None:
    answer = public.get("/?key=0123")
    assert answer.status_code == 303 and "set-cookie" not in answer.headers


# What is shown -----------------------------------------------------------------------------------


def test_addresses_that_the_client_tells_open_pages(
    public: httpx2.Client, api: HfApi, repo: str
) -> None:
    sha = commit(api, repo, {"folder/with space.txt": b"in it"}, commit_message="First words")
    api.create_tag(repo, tag="v1/a", revision=sha)
    collection = api.create_collection(title="To be opened")
    api.add_collection_item(collection.slug, repo, "model", note="Its note")
    base = api.endpoint
    for address, words in {
        f"{base}/{repo}": repo.partition("/")[2],
        f"{base}/{repo}/commit/{sha}": "First words",
        f"{base}/{repo}/commits/main": "First words",
        f"{base}/{repo}/tree/main": "folder",
        f"{base}/{repo}/tree/v1%2Fa/folder": "with space.txt",
        f"{base}/{repo}/blob/main/folder/with%20space.txt": "in it",
        f"{base}/{repo}/tree/{sha[:7]}?all": "with space.txt",
        collection.url: "Its note",
        f"{base}/{USER}": "To be opened",
        f"{base}/": "To be opened",
    }.items():
        answer = public.get(address)
        assert answer.status_code == 200 and words in answer.text, address


def test_pull_request_is_shown_where_the_client_says(
    public: httpx2.Client, api: HfApi, visitor: HfApi, repo: str
) -> None:
    commit(api, repo, {"a.txt": b"as it was\n"})
    words = {"commit_message": "Say <b>more</b>", "commit_description": "**Because** <script>"}
    operation = CommitOperationAdd("a.txt", b"as it is <script>\n")
    asked = visitor.create_commit(repo, [operation], create_pr=True, **words)
    page = public.get(str(asked.pr_url)).text
    for part in (
        "Say &lt;b&gt;more&lt;/b&gt;",
        "<strong>Because</strong>",
        "+as it is &lt;script&gt;",
        "refs%2Fpr%2F1",
    ):
        assert part in page, part
    assert "<script" not in page
    assert "Say &lt;b&gt;more" in public.get(f"/{repo}/discussions").text
    assert "as it is" in public.get(f"/{repo}/blob/refs%2Fpr%2F1/a.txt").text
    api.update_repo_settings(repo, gated="auto")
    hidden = public.get(str(asked.pr_url)).text
    assert "<strong>Because</strong>" in hidden and "as it is" not in hidden
    api.merge_pull_request(repo, asked.pr_num or 0)
    assert "merged it" in public.get(str(asked.pr_url)).text


def test_collection_keeps_its_order(public: httpx2.Client, api: HfApi, repo: str) -> None:
    names = [f"{repo}-{i}" for i in range(6)]  # more than a listing holds
    slug = api.create_collection(title="In order").slug
    for name in reversed(names):
        api.create_repo(name)
        api.add_collection_item(slug, name, "model")
    page = public.get(f"/collections/{slug}").text
    places = [page.index(f'href="/{name}"') for name in names]
    assert places == sorted(places, reverse=True)


def test_metadata_is_shown(public: httpx2.Client, api: HfApi, repo: str) -> None:
    licence = b"# The licence"
    commit(api, repo, {"README.md": CARD.encode(), "LICENSE.md": licence})
    page = public.get(f"/{repo}").text
    for words in (
        ">Text-to-Image<",
        ">Diffusers<",
        "<span>base_model:</span><span>quantized:</span>black-forest-labs/FLUX.1-dev",
        f'<a href="/{repo}/blob/main/LICENSE.md" rel="noreferrer">flux-1-dev-non-commercial',
        'href="https://huggingface.co/black-forest-labs/FLUX.1-dev"',
        "<li>gguf</li>",
    ):
        assert words in page, words
    assert "license_link" not in page, "the front matter is no text"
    assert "The licence" in public.get(f"/{repo}/blob/main/LICENSE.md").text


@pytest.mark.parametrize(
    "value",
    ["3", "[1, {a: [b]}]", "{a: {b: c}}", "null", "2024-01-01", ".nan", "'" + "x" * 5000 + "'"],
)
def test_metadata_of_any_kind_breaks_no_page(
    value: str, owner: httpx2.Client, api: HfApi, repo: str
) -> None:
    keys = "license license_link base_model base_model_relation tags widget language pipeline_tag"
    keys += " library_name extra_gated_fields extra_gated_prompt"
    lines = "".join(f"{key}: {value}\n" for key in keys.split())
    commit(api, repo, {"README.md": f"---\n{lines}---\n# Still here".encode()})
    for address in (f"/{repo}", "/", f"/{repo}/tree/main"):
        assert owner.get(address).status_code == 200
    assert "Still here" in owner.get(f"/{repo}").text
    api.delete_repo(repo)  # the client cannot list what has such tags


def test_owner_is_told_what_to_look_at(
    owner: httpx2.Client, public: httpx2.Client, api: HfApi, repo: str
) -> None:
    assert "no model card" in owner.get(f"/{repo}").text
    text = "![x](gone.png) [y](gone.md) ![z](https://other.invalid/z.png) ![](here.png)"
    widget = "widget: [{text: a, output: {url: lost.png}}]"
    card = f"---\nlicense: nonsense\n{widget}\nlicense_link: LICENSE\n---\n{text}"
    commit(api, repo, {"README.md": card.encode(), "here.png": b"x"})
    page = owner.get(f"/{repo}").text
    for words in (
        "license: is no identifier of the Hub",
        "pipeline_tag: is missing",
        "license_link leads to LICENSE, which is not in the repository",
        "gallery&#39;s picture lost.png is not in",
        "refers to gone.png, which is not in",
        "refers to gone.md, which is not in",
        "shows https://other.invalid/z.png, which lies on another host",
        "here.png has no text",
    ):
        assert words in page, words
    assert "to look at before going public" not in public.get(f"/{repo}").text


def test_files_say_how_they_are_stored(public: httpx2.Client, api: HfApi, repo: str) -> None:
    large = bytes(range(256)) * 8
    sha = commit(api, repo, {"a/model.safetensors": large, "a/config.json": b'{"x": 1}'})
    page = public.get(f"/{repo}/tree/main/a").text
    rows = {row.split("</bdi>")[0].split("<bdi>")[1]: row for row in page.split("<tr>")[2:]}
    assert "LFS / Xet" in rows["model.safetensors"] and "LFS / Xet" not in rows["config.json"]
    digest = sha256(large)
    assert digest in rows["model.safetensors"] and "2.05 kB" in rows["model.safetensors"]
    link = re.search(r'href="(/-/file[^"]*)"', rows["model.safetensors"])
    assert link and public.get(link[1]).content == large
    assert digest in public.get(f"/{repo}/blob/{sha}/a/model.safetensors").text
    assert '"x"' in public.get(f"/{repo}/blob/{sha}/a/config.json").text.replace("&quot;", '"')


# Hostile repositories ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(hub: RehearsalHub) -> str:
    """The repository of `hostile_card.py`."""
    repo, api = f"{USER}/hostile", api_of(hub)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        api.create_repo(repo)
        commit(
            api,
            repo,
            hostile_files(),
            commit_message=COMMIT,
            commit_description="{{ 7 * 7 }}<script>",
        )
    return repo


def test_names_and_words_are_escaped_on_every_page(owner: httpx2.Client, hostile: str) -> None:
    addresses = [
        "/",
        f"/{USER}",
        f"/{hostile}",
        f"/{hostile}/tree/main",
        f"/{hostile}/tree/main?all",
    ]
    addresses += [f"/{hostile}/commits/main", f"/{hostile}/commit/main"]
    addresses += [f"/{hostile}/blob/main/{quote(name)}" for name in hostile_files()]
    for address in addresses:
        page = owner.get(address)
        assert page.status_code == 200, address
        # What was escaped is words; what is left of the markup is ours.
        assert "<script" not in page.text
        assert ("{{ 7 * 7 }}" in page.text) is (hostile in address)
        assert "\u202e" not in page.text and 'href="javascript' not in page.text
        elements = Elements()
        elements.feed(page.text)
        assert len(elements.found) > 20
        for tag, attributes in elements.found:
            assert not any(each.startswith("on") or each == "style" for each in attributes), tag


@pytest.mark.parametrize("name", ["page.html", "images/x.svg", "broken.png", *NAMES])
def test_contents_are_never_alive(name: str, owner: httpx2.Client, hostile: str) -> None:
    address = f"/-/file/{hostile}/main/{quote(name)}"
    answer = owner.get(address)
    assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    if name.endswith((".svg", ".png")):
        assert answer.headers["content-type"].startswith("image/")
        answer = owner.get(f"{address}?download=true")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert name != "images/x.svg" or answer.content == SVG


@pytest.mark.parametrize(
    "way",
    [
        "../accounts.json",
        "..%2f..%2faccounts.json",
        "%2e%2e/secret",
        "/etc/passwd",
        "a\\..\\b",
        "%00",
    ],
)
@pytest.mark.parametrize(
    "start", ["/-/styles/", "/-/file/{}/main/", "/{}/blob/main/", "/{}/tree/main/", "/{}/tree/"]
)
def test_no_path_leads_out(
    start: str, way: str, hub: RehearsalHub, owner: httpx2.Client, hostile: str
) -> None:
    url = httpx2.URL(hub.url).copy_with(raw_path=(start.format(hostile) + way).encode())
    answer = owner.send(owner.build_request("GET", url))
    assert answer.status_code in (400, 404)
    assert not any(token in answer.text for token in hub.tokens.values())


def test_every_page_is_sent_with_the_policy(public: httpx2.Client, hostile: str) -> None:
    for address in ("/", f"/{hostile}", f"/{hostile}/tree/main", "/nobody/nothing", "/nobody"):
        headers = public.get(address).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy
        assert "script-src" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert (
            headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
        )


def test_pages_take_nothing_from_the_api(public: httpx2.Client, repo: str) -> None:
    for method, address in (
        ("GET", "/api/unknown"),
        ("GET", "/api/models/nobody/nothing"),
        ("GET", f"/api/tree/main/{repo}"),
        ("POST", f"/{repo}"),
        ("DELETE", "/"),
        ("GET", f"/{repo}.git/info/refs"),
        ("GET", "/nobody/nothing/resolve/main/x"),
    ):
        answer = public.request(method, address)
        assert answer.status_code in (401, 404, 405), address
        assert answer.headers["content-type"] == "application/json", address
    huge = public.post("/-/sign-in", content=b"token=" + b"x" * 100_000)
    assert huge.status_code == 403


def test_same_colours_and_faces_as_the_report() -> None:
    report = (ROOT / "validators/page/styles/page.css").read_text()
    ours = (ROOT / "hub/rehearsal/pages/styles/page.css").read_text()
    theirs = dict(re.findall(r"^  (--[a-z-]+): (.*);$", report, re.M))
    own = dict(re.findall(r"^  (--[a-z-]+): (.*);$", ours, re.M))
    assert len(own) > 12 and own.items() <= theirs.items()
