"""Whatever becomes of a part: run again, or not, the variants are those of an unsplit run."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from killing import Maker
from test_resuming import BACKENDS, files_of, flip

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize, quantize_part
from fluxconv.converters.errors import OutputExists
from fluxconv.converters.progress import Silent
from fluxconv.converters.staging import hidden

PARTS = 3


def written_weights(output: Path) -> set[str]:
    """What the parts' journals name as written, as `killing` notes what it encodes."""
    found = set()
    for path in output.glob(".*.partial/.journal-part-*"):
        backend = path.parent.name.removeprefix(".tiny-flux-").removesuffix(".partial")
        for line in path.read_text().splitlines():
            if line.endswith("}") and '"done"' in line:
                component, weight = line.split('"')[3:6:2]
                found.add(f"{backend} {component} {weight}")
    return found


@pytest.mark.slow
def test_parts_at_once_in_processes_of_their_own(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    job: dict[str, Any] = {"source": str(tiny_checkpoint.root), "backends": BACKENDS}
    status: list[int] = []

    def work(index: int) -> None:
        with Maker() as maker:
            output, notes = str(tmp_path / "out"), str(tmp_path / f"encoded {index}")
            status.append(maker.run(**job, output=output, encoded=notes, part=[index, PARTS]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(PARTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert status == [0] * PARTS
    with Maker() as maker:
        for name in ("out", "whole"):
            output, notes = str(tmp_path / name), str(tmp_path / f"encoded {name}")
            assert maker.run(**job, output=output, encoded=notes) == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert not (tmp_path / "encoded out").exists()
    each = [set((tmp_path / f"encoded {i}").read_text().split("\n")[:-1]) for i in range(PARTS)]
    assert sum(map(len, each)) == len(set.union(*each))


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_parts_are_run_again(
    kills: int, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """No weight that was written is encoded again, whoever does it next, and into how many parts
    it is split then."""
    output, notes = tmp_path / "out", tmp_path / "encoded"
    job: dict[str, Any] = {
        "source": str(tiny_checkpoint.root),
        "backends": BACKENDS,
        "encoded": str(notes),
    }
    chance = random.Random(kills)
    with Maker() as maker:
        assert maker.run(**job, output=str(tmp_path / "whole")) == 0
        started = time.monotonic()
        assert maker.run(**job, output=str(tmp_path / "again"), part=[0, PARTS]) == 0
        length = time.monotonic() - started
        for _ in range(kills):
            before = written_weights(output)
            notes.write_text("")
            count = chance.choice([PARTS, PARTS + 1])
            part = [chance.randrange(count), count]
            after = chance.uniform(0, length)
            status = maker.run(kill_after=after, **job, output=str(output), part=part)
            assert status in (0, -9)
            assert not before & set(notes.read_text().split("\n"))
        for index in range(PARTS):
            assert maker.run(**job, output=str(output), part=[index, PARTS]) == 0
        notes.write_text("")
        for _ in range(2):
            maker.run(kill_after=chance.uniform(0, length), **job, output=str(output))
        assert maker.run(**job, output=str(output)) == 0
    assert not notes.read_text()
    assert files_of(output) == files_of(tmp_path / "whole")


def test_a_source_with_a_new_date_starts_over(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "tiny-flux"))
    quantize_part(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out", 0, 2)
    first = next(iter(open_checkpoint(source).components["transformer"].tensors.values()))
    flip(source, first.offset)
    os.utime(source / "transformer" / "diffusion_pytorch_model.safetensors")
    quantize_part(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out", 1, 2)
    (made,) = quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out")
    (fresh,) = quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "fresh")
    assert files_of(made.root) == files_of(fresh.root)


@pytest.mark.parametrize("again", [False, True], ids=["no part again", "the part again"])
def test_a_source_changed_behind_its_date_is_found_by_its_hash(
    again: bool, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Where two journals of the same weight disagree, neither is believed."""
    source = Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "tiny-flux"))
    for index in range(2):
        quantize_part(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out", index, 2)
    first = next(iter(open_checkpoint(source).components["transformer"].tensors.values()))
    flip(source, first.offset)
    if again:
        quantize_part(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out", 0, 2)
    (made,) = quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out")
    (fresh,) = quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "fresh")
    assert files_of(made.root) == files_of(fresh.root)


@contextmanager
def held(folder: Path, how: int) -> Iterator[None]:
    """The hidden folder, locked as another process would."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def test_a_part_leaves_a_folder_that_somebody_has_alone(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluxconv.converters.staging._PATIENCE", 0.2)
    with (
        held(hidden(tmp_path / "tiny-flux-gguf-q8_0", "partial"), fcntl.LOCK_EX),
        pytest.raises(OutputExists, match="another run is writing it"),
    ):
        quantize_part(tiny_checkpoint, ["gguf-q8_0"], tmp_path, 0, 2)


def test_variants_are_not_made_while_a_part_is_at_work(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    class Makes(Silent):
        refused = ""

        def advance(self, amount: int, item: str = "") -> None:
            if not self.refused:
                with pytest.raises(OutputExists, match="another run is writing it") as caught:
                    quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path)
                self.refused = str(caught.value)

    progress = Makes()
    quantize_part(tiny_checkpoint, ["gguf-q8_0"], tmp_path, 0, 2, progress=progress)
    assert progress.refused


def test_parts_of_other_settings_do_not_mix(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """While one is at work, the other is refused; when it is over, it makes room."""
    one = tiny_checkpoint
    other = open_checkpoint(tiny_checkpoint.root, source="somebody/else")
    folder = hidden(tmp_path / "tiny-flux-gguf-q8_0", "partial")
    quantize_part(other, ["gguf-q8_0"], tmp_path, 0, 2)
    with (
        held(folder, fcntl.LOCK_SH),
        pytest.raises(OutputExists, match="another run is writing it"),
    ):
        quantize_part(one, ["gguf-q8_0"], tmp_path, 0, 2)
    quantize_part(one, ["gguf-q8_0"], tmp_path, 0, 2)
    (made,) = quantize(one, ["gguf-q8_0"], tmp_path)
    assert files_of(made.root) == files_of(tiny_variants["gguf-q8_0"].root)


def test_an_interrupted_run_is_continued_in_parts(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    class Stops(Silent):
        def advance(self, amount: int, item: str = "") -> None:
            if item == "transformer_blocks.1.attn.to_k.weight":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path, progress=Stops())
    for index in range(2):
        quantize_part(tiny_checkpoint, ["gguf-q8_0"], tmp_path, index, 2)
    (made,) = quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path)
    assert files_of(made.root) == files_of(tiny_variants["gguf-q8_0"].root)


def test_where_folders_cannot_be_locked_a_file_stands_in_for_them(
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NFS gives a lock for one alone only on what is open for writing (flock(2))."""
    real = fcntl.flock

    def flock(handle: int, how: int) -> None:
        writable = fcntl.fcntl(handle, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR)
        if how & fcntl.LOCK_EX and not writable:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    refused = []

    class Makes(Silent):
        def advance(self, amount: int, item: str = "") -> None:
            if not refused:
                with pytest.raises(OutputExists, match="another run is writing it") as caught:
                    quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path)
                refused.append(caught)

    for index in range(2):
        quantize_part(tiny_checkpoint, ["gguf-q8_0"], tmp_path, index, 2, progress=Makes())
    (made,) = quantize(tiny_checkpoint, ["gguf-q8_0"], tmp_path)
    assert refused
    assert files_of(made.root) == files_of(tiny_variants["gguf-q8_0"].root)
