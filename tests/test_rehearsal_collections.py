"""Collections of the rehearsal Hub live, and are limited, as the Hub's."""

from __future__ import annotations

import pytest
from hub_client import status_of
from huggingface_hub import HfApi

pytestmark = pytest.mark.usefixtures("online_client")


def test_a_collection_lives_through_its_whole_cycle(api: HfApi, visitor: HfApi, repo: str) -> None:
    models = [repo, *(api.create_repo(f"{repo}-{n}").repo_id for n in range(5))]
    made = api.create_collection("Flux variants: all of them!", description="x" * 150)
    assert made.slug.startswith("rehearsal/flux-variants-all-of-them-")
    assert status_of(lambda: api.create_collection(made.title)) == 409
    assert api.create_collection(made.title, exists_ok=True).slug == made.slug
    for model in models:
        api.add_collection_item(made.slug, model, "model", note=f"Note on {model}")
    assert status_of(lambda: api.add_collection_item(made.slug, repo, "model")) == 409
    api.add_collection_item(made.slug, repo, "model", exists_ok=True)
    assert status_of(lambda: api.add_collection_item(made.slug, "no/thing", "model")) == 404

    shown = visitor.get_collection(made.slug)
    assert [item.item_id for item in shown.items] == models
    assert shown.items[0].note == f"Note on {repo}"
    (listed,) = visitor.list_collections(owner="rehearsal", item=f"models/{repo}")
    assert [item.item_id for item in listed.items] == models[:4]

    last = shown.items[-1]
    api.update_collection_item(made.slug, last.item_object_id, note="n" * 500, position=0)
    api.delete_collection_item(made.slug, shown.items[1].item_object_id)
    api.delete_repo(models[2])
    items = api.get_collection(made.slug).items
    assert [i.item_id for i in items] == [models[5], models[0], models[3], models[4]]
    assert [i.position for i in items] == [0, 1, 2, 3]
    assert items[0].note == "n" * 500

    renamed = api.update_collection_metadata(
        made.slug, title="Renamed", description="New", theme="green", private=True
    )
    assert renamed.slug == f"rehearsal/renamed-{made.slug[-24:]}"
    assert api.get_collection(made.slug).title == "Renamed"
    assert status_of(lambda: visitor.get_collection(made.slug)) == 404
    api.delete_collection(made.slug)
    assert status_of(lambda: api.get_collection(made.slug)) == 404
    api.delete_collection(made.slug, missing_ok=True)


def test_the_limits_of_collection_texts_are_the_hubs(api: HfApi, visitor: HfApi, repo: str) -> None:
    slug = api.create_collection("Limits").slug
    item = api.add_collection_item(slug, repo, "model").items[0].item_object_id
    for too_much in (
        lambda: api.create_collection("t" * 61),
        lambda: api.create_collection("d", description="d" * 151),
        lambda: api.update_collection_metadata(slug, description="d" * 151),
        lambda: api.update_collection_metadata(slug, theme="plaid"),
        lambda: api.update_collection_item(slug, item, note="n" * 501),
    ):
        assert status_of(too_much) == 400
    assert status_of(lambda: visitor.delete_collection(slug)) == 403
    assert status_of(lambda: api.delete_collection_item(slug, "0" * 24)) == 404
