"""Publishing all variants that passed, and the collection of them."""

from __future__ import annotations

from typing import Any

from fluxconv.converters.errors import CheckFailed, NotAVariant
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
    found = {
        "variants_published": names,
        "repositories": repositories,
        "collection": None
        if listed is None
        else {"title": listed.title, "url": listed.url, "slug": listed.slug},
    }
    return {**found, "digest": digest(found)}


KIND = Kind("publish", 1, _run)
