"""The graph of a checked recipe: a row of nodes for each checkpoint and variant, one publisher."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fluxconv.converters.variant import hash_file
from fluxconv.recipes.checked import Checked, CheckedCheckpoint, CheckedVariant
from fluxconv.recipes.graph import Graph, Node, Resources

PUBLISHER = "publish.release"


def build(
    checked: Checked,
    *,
    parts: int | None = None,
    publish: bool = True,
    strict: bool = False,
    commits: Mapping[str, str] | None = None,
) -> Graph:
    """The nodes of a release. `parts` splits the pass over each checkpoint, `publish` False leaves
    the publisher out, `strict` has it publish all or nothing. `commits` are those of checkpoints,
    by name, that could not be asked for now.

    Raises `BadInput` for a recipe without work, or with two parts of one name.
    """
    return Graph(_nodes(checked, parts or 1, publish, strict, commits or {}))


def _nodes(
    checked: Checked, parts: int, publish: bool, strict: bool, commits: Mapping[str, str]
) -> Iterator[Node]:
    cards: list[str] = []
    shared: tuple[str, ...] = ()
    for checkpoint in checked.checkpoints:
        yield _fetch(checkpoint, commits)
        maker = f"{'assemble' if parts > 1 else 'quantize'}.{checkpoint.name}"
        yield from _making(checked, checkpoint, parts, maker)
        yield _reference(checked, checkpoint)
        reports: dict[str, list[str]] = {}
        for variant in checkpoint.variants:
            measuring = list(_measuring(checked, checkpoint, variant, maker))
            yield from measuring
            reports[variant.name] = [node.id for node in measuring]
        every = tuple(id for ids in reports.values() for id in ids)
        # Where nothing is shared, what a node works on must come with its inputs.
        made = (maker,) if isinstance(checked.output, str) else ()
        yield Node(f"compare.{checkpoint.name}", "compare", gathers=(*made, *every))
        for name, own in reports.items():
            cards.append(f"card.{name}")
            yield _card(checked, name, (*made, *own), every)
        shared += (*made, *every) if made else ()
    publication = checked.recipe.publication
    if publication is not None and publish:
        yield _publisher(checked, tuple(cards), shared, strict or publication.all_or_nothing)


def _fetch(checkpoint: CheckedCheckpoint, commits: Mapping[str, str]) -> Node:
    row = checkpoint.row
    arguments: dict[str, Any] = {
        "id": checkpoint.id,
        "base": checkpoint.base,
        "revision": checkpoint.revision or commits.get(checkpoint.name),
        "source_id": row.source_id,
        "allow_requantize": row.allow_requantize,
    }
    opened = checkpoint.checkpoint
    if checkpoint.revision is None and opened is not None:
        # What lies on this machine may change without its name changing.
        arguments["files"] = {name: _stamp(path) for name, path in sorted(opened.files.items())}
        # It has the licence, and is read with the source without being one of its files.
        arguments["front_matter"] = json.loads(json.dumps(dict(opened.front_matter), default=str))
    return Node(f"fetch.{checkpoint.name}", "fetch", arguments, passing=True)


def _making(
    checked: Checked, checkpoint: CheckedCheckpoint, parts: int, maker: str
) -> Iterator[Node]:
    """One pass over the checkpoint for all its variants, or its parts and what joins them."""
    arguments: dict[str, Any] = {
        "backends": [
            {"name": v.made_by.backend.name, "options": _with_hashes(v.made_by.given)}
            for v in checkpoint.variants
        ],
        "components": list(checked.recipe.components),
        "device": checked.recipe.device,
    }
    memory = max((v.plan.peak_memory for v in checkpoint.variants if v.plan), default=0)
    resources = Resources(gpus=_gpus(checked), memory=memory)
    fetched = (f"fetch.{checkpoint.name}",)
    if parts == 1:
        yield Node(maker, "quantize", arguments, needs=fetched, resources=resources)
        return
    split = {**arguments, "parts": parts}
    names = [f"part.{checkpoint.name}-{part}-of-{parts}" for part in range(1, parts + 1)]
    for number, id in enumerate(names):
        yield Node(
            id, "part", {**split, "part": number}, fetched, resources=resources, passing=True
        )
    yield Node(maker, "assemble", split, (*fetched, *names), resources=resources)


def _reference(checked: Checked, checkpoint: CheckedCheckpoint) -> Node:
    return Node(
        f"reference.{checkpoint.name}",
        "reference",
        _drawing(checked),
        needs=(f"fetch.{checkpoint.name}",),
        resources=Resources(gpus=_gpus(checked), memory=checked.totals.draw_memory or 0),
        passing=True,
    )


def _measuring(
    checked: Checked, checkpoint: CheckedCheckpoint, variant: CheckedVariant, maker: str
) -> Iterator[Node]:
    """What is measured of a variant; the last node leaves its whole report."""
    recipe, gpus = checked.recipe, _gpus(checked)
    memory = checked.totals.draw_memory or 0
    thresholds = recipe.validation.thresholds
    arguments = {
        **_drawing(checked),
        "variant": variant.name,
        "thresholds": _file(checked, thresholds),
    }
    sources = (f"fetch.{checkpoint.name}", maker, f"reference.{checkpoint.name}")
    yield Node(
        f"validate.{variant.name}",
        "validate",
        arguments,
        needs=sources,
        resources=Resources(gpus=gpus, memory=memory),
    )
    if recipe.performance is not None:
        yield Node(
            f"benchmark.{variant.name}",
            "benchmark",
            {**arguments, "modes": list(recipe.performance.modes)},
            needs=(*sources, f"validate.{variant.name}"),
            # A GPU is one process's alone at any time; the processor is not.
            resources=Resources(gpus=gpus, memory=memory, alone=not gpus),
        )


def _card(checked: Checked, name: str, own: tuple[str, ...], every: tuple[str, ...]) -> Node:
    recipe = checked.recipe
    publication = recipe.publication
    arguments = {
        "variant": name,
        "namespace": publication.namespace if publication else None,
        "blind_tests": [_file(checked, text) for text in recipe.card.blind_tests],
        "sign": _file(checked, recipe.card.sign),
    }
    others = tuple(id for id in every if id not in own)
    # A private key stays with the driver.
    signs = recipe.card.sign is not None
    return Node(f"card.{name}", "card", arguments, own, others, on_driver=signs)


def _publisher(
    checked: Checked, cards: tuple[str, ...], shared: tuple[str, ...], all_or_nothing: bool
) -> Node:
    publication = checked.recipe.publication
    assert publication is not None
    from fluxconv.hub.session import default_endpoint

    arguments = {
        **publication.model_dump(mode="json", exclude={"all_or_nothing", "timeout"}),
        "endpoint": default_endpoint(),  # published elsewhere, it is another publication
        "waiting": {"path": publication.timeout},  # how long it waits decides nothing
    }
    needs, gathers = (cards, shared) if all_or_nothing else ((), (*cards, *shared))
    return Node(PUBLISHER, "publish", arguments, needs, gathers, on_driver=True)


def _drawing(checked: Checked) -> dict[str, Any]:
    """What decides how pictures are drawn."""
    wanted = checked.recipe.validation
    cache = wanted.cache
    return {
        "preset": wanted.preset,
        "limit": wanted.limit,
        "prompts": _file(checked, wanted.prompts),
        "overrides": {k: v for k, v in wanted.overrides.items() if v is not None},
        "offload": wanted.offload,
        "device": checked.recipe.device,
        "cache": None if cache is None else {"path": str(checked.file.path(cache))},
    }


def _file(checked: Checked, text: str | None) -> dict[str, str] | None:
    return None if text is None else _hashed(checked.file.path(text))


def _hashed(path: Path) -> dict[str, str]:
    """A file that decides something: by its content, wherever it lies (see `key_of`)."""
    return {"path": str(path), "sha256": hash_file(path).sha256}


def _with_hashes(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _hashed(Path(value)) if key == "importance" and value else value
        for key, value in given.items()
    }


def _stamp(path: Path) -> list[int]:
    seen = path.stat()
    return [seen.st_size, seen.st_mtime_ns]


def _gpus(checked: Checked) -> int:
    return 1 if checked.device == "cuda" else 0
