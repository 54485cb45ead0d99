"""An output that is a URL: what nodes make in scratch comes there, and only when it is complete."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from test_resuming import files_of

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.errors import BadInput
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.recipes.executors.base import Ended
from fluxconv.recipes.executors.scratch import BROUGHT, is_url, refuse_url, scratch
from fluxconv.recipes.graph import Graph, Node, Resources


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        file = folder / name.replace("__", "/").replace("_json", ".json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/there"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


def test_what_is_new_is_brought_and_the_manifest_last(
    url: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node("quantize.x", "quantize")
    came: list[str] = []
    with scratch(url, node, {}) as here:
        write(here.folder, a__weights="w", a__fluxconv_json="{}", a__zeta="z", b="b")
        write(here.folder, **{".a.partial__rest": "half"})
        real = here._fs.put_file
        monkeypatch.setattr(
            here._fs, "put_file", lambda own, to: (came.append(Path(to).name), real(own, to))
        )
        brought = here.bring()
    assert not here.folder.exists()
    assert files_of(there) == {
        "a/weights": b"w",
        f"a/{MANIFEST_NAME}": b"{}",
        "a/zeta": b"z",
        "b": b"b",
    }
    assert brought == {"a/weights": 1, "a/zeta": 1, "b": 1, f"a/{MANIFEST_NAME}": 2}
    assert came[-1] == MANIFEST_NAME


def test_a_node_begins_with_its_own_variant_and_brings_what_it_changed(
    url: str, there: Path
) -> None:
    write(there, a__weights="a", b__weights="b", a__report_json="old", shared="s")
    made = {"variants": {"a": "1", "b": "2"}, BROUGHT: {"a/weights": 1, "b/weights": 1}}
    looked = {BROUGHT: {"a/report.json": 3, "shared": 1}}
    node = Node("benchmark.a", "benchmark", {"variant": "a"})
    with scratch(url, node, {"quantize.x": made, "validate.a": looked}) as here:
        assert set(files_of(here.folder)) == {"a/weights", "a/report.json", "shared"}
        write(here.folder, a__report_json="newer")
        assert here.bring() == {"a/report.json": 5}
    assert (there / "a/report.json").read_text() == "newer"
    assert (there / "b/weights").read_text() == "b"


def test_a_variant_that_is_replaced_is_none_until_all_of_it_is_there(
    url: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(there, a__fluxconv_json="old", a__weights="old")
    with scratch(url, Node("quantize.x", "quantize"), {}) as here:
        write(here.folder, a__fluxconv_json="new", a__weights="new")

        def fails(*_: object) -> None:
            raise OSError("the network is gone")

        monkeypatch.setattr(here._fs, "put_file", fails)
        with pytest.raises(OSError, match="network"):
            here.bring()
    assert not (there / "a" / MANIFEST_NAME).exists()


def test_what_is_gone_is_said(url: str) -> None:
    inputs = {"quantize.x": {"variants": {"a": "1"}, BROUGHT: {"a/weights": 1}}}
    with (
        pytest.raises(BadInput, match="a/weights: is gone"),
        scratch(url, Node("validate.a", "validate", {"variant": "a"}), inputs),
    ):
        pass


@pytest.mark.parametrize(
    ("output", "kind", "said"),
    [
        ("memory://out", "quantize", "memory of one process"),
        ("nowhere://out", "quantize", "Protocol not known"),
        ("file:///tmp/out", "part", "leave out --parts"),
    ],
)
def test_urls_that_will_not_do_are_refused(output: str, kind: str, said: str) -> None:
    assert is_url(output)
    assert not is_url("/a/folder")
    with pytest.raises(BadInput, match=said):
        refuse_url(output, Node("a.b", kind))


@pytest.mark.slow
def test_workers_bring_the_variants_of_this_machine(
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    url: str,
    there: Path,
) -> None:
    """To where they do not otherwise write."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    from ray_cluster import cluster, drive, ended, release, request

    from fluxconv.recipes.executors.ray import RayExecutor

    names = ["gguf-q8_0", "bnb-nf4"]
    split = release(tiny_checkpoint.root, names, 1)
    arguments = {k: v for k, v in split["assemble.tiny"].arguments.items() if k != "parts"}
    fetch = split["fetch.tiny"]
    making = Node("quantize.tiny", "quantize", arguments, (fetch.id,), resources=Resources())
    with cluster(1) as nodes, RayExecutor(address=nodes.address) as executor:
        found = drive(executor, Graph([fetch, making]), url, seconds=400)
        executor.submit(request(fetch, "memory://out", {}))
        event, _ = ended(executor)
    assert found.results["quantize.tiny"][BROUGHT]
    assert {path.name for path in there.iterdir()} == {tiny_variants[n].name for n in names}
    for name in names:
        variant = tiny_variants[name]
        assert files_of(there / variant.name) == files_of(variant.root)
    assert isinstance(event, Ended)
    assert event.outcome.problem
    assert "memory of one process" in event.outcome.problem.message
