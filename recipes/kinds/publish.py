"""Publishing all variants that passed, and the collection of them."""

from __future__ import annotations

from typing import Any

from fluxconv.converters.errors import CheckFailed, NotAVariant
from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work, digest


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.converters import open_variant
    from fluxconv.hub import push

    wanted = work.arguments
    visibility = wanted["visibility"]
    names = list(work.results("card"))
    if not names:
        raise CheckFailed("no variant passed, so there is nothing to publish")
    try:
        done = push(
            [open_variant(work.output / name) for name in names],
            wanted["namespace"],
            collection=wanted["collection"],
            private=None if visibility is None else visibility == "private",
            gated=wanted["gated"],
            replace=wanted["replace"],
            timeout=wanted["waiting"]["path"],
            endpoint=wanted["endpoint"],
            progress=work.progress,
            on_step=lambda step: work.progress.note(f"{step.place}: {step.step} {step.detail}"),
        )
    except NotAVariant as error:
        # Its size is what it was, so nothing has noticed; without its folder it is made again.
        raise NotAVariant(
            f"{error}; remove that variant's folder and run the recipe again: it is made anew"
        ) from None
    repositories = [
        {"name": each.name, "url": each.url, "commit": each.commit, "variants": each.variants}
        for each in done.repositories
    ]
    listed = done.collection
    before = published_in(work.earlier) if work.earlier else {}
    found = {
        "variants_published": names,
        "repositories": repositories,
        "still_published": {name: url for name, url in before.items() if name not in names},
        "collection": None
        if listed is None
        else {"title": listed.title, "url": listed.url, "slug": listed.slug},
    }
    return {**found, "digest": digest(found)}


def published_in(result: Result) -> dict[str, str]:
    """The variants that are on the Hub by the result of a publication, and where: its own, and
    those of earlier ones that are not among these any more."""
    return {
        **result.get("still_published", {}),
        **{name: each["url"] for each in result["repositories"] for name in each["variants"]},
    }


KIND = Kind("publish", 1, _run)
