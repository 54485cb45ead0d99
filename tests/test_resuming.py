"""Whatever stops a run: the output is as it was or complete, and the same command does the rest."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from killing import Maker

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, open_variant, quantize
from fluxconv.converters.backends import get_backend
from fluxconv.converters.errors import OutputExists, SourceChanged
from fluxconv.converters.journal import JOURNAL_NAME, Journal
from fluxconv.converters.progress import Silent

#: One whose rows stand alone, one that is encoded whole, one whose sizes are known only afterwards,
#: and one in the other container.
BACKENDS: list[list[Any]] = [
    ["torchao-int8", {}],
    ["bnb-nf4", {}],
    ["bnb-nf4", {"double_quant": True}],
    ["gguf-q8_0", {}],
]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def complete_variants(output: Path) -> int:
    """How many variants stand in the output; each must be whole."""
    places = [path for path in output.iterdir() if not path.name.startswith(".")]
    for place in places:
        open_variant(place).check_hashes(Silent())
    return len(places)


def written_weights(output: Path) -> set[str]:
    """What the journals in an output name as written, as `killing` notes what it encodes."""
    found = set()
    for path in output.glob(f".*.partial/{JOURNAL_NAME}"):
        backend = path.parent.name.removeprefix(".tiny-flux-").removesuffix(".partial")
        for line in path.read_text().splitlines():
            if line.endswith("}") and '"done"' in line:
                component, weight = line.split('"')[3:6:2]
                found.add(f"{backend} {component} {weight}")
    return found


@pytest.mark.parametrize(
    "kills", [6, pytest.param(60, marks=pytest.mark.slow)], ids=["a few", "many"]
)
def test_killed_at_any_moment_it_goes_on(
    kills: int, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """No weight that was written is encoded again; no byte differs from an uninterrupted run."""
    output, notes = tmp_path / "out", tmp_path / "encoded"
    job: dict[str, Any] = {
        "source": str(tiny_checkpoint.root),
        "backends": BACKENDS,
        "output": str(output),
        "encoded": str(notes),
    }
    chance = random.Random(kills)
    with Maker() as maker:
        assert maker.run(**job | {"output": str(tmp_path / "whole")}) == 0
        whole = files_of(tmp_path / "whole")
        started = time.monotonic()
        assert maker.run(**job | {"output": str(tmp_path / "again")}) == 0
        length = time.monotonic() - started
        done, rounds, unfinished = 0, 0, Counter[int]()
        while done < kills:
            before = written_weights(output) if output.exists() else set()
            notes.write_text("")
            status = maker.run(kill_after=chance.uniform(0, length), **job)
            assert status in (0, -9)
            encoded = set(notes.read_text().split("\n"))
            assert not encoded & before
            done += status == -9
            if output.exists():
                unfinished[complete_variants(output)] += 1
            if status == 0:
                rounds += 1
                assert files_of(output) == whole
                shutil.rmtree(output)
        assert maker.run(**job) == 0
    assert files_of(output) == whole
    assert sorted(path.name for path in output.iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_same_command_again_finds_the_variant_there(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """One of two was finished: only the other is made, and the first is not touched."""
    place = tmp_path / "tiny-flux-bnb-nf4"
    shutil.copytree(tiny_variants["bnb-nf4"].root, place)
    (place / JOURNAL_NAME).touch()  # left by a kill right after the rename
    before = (place / "fluxconv.json").stat().st_mtime_ns
    made = quantize(tiny_checkpoint, ["bnb-nf4", "gguf-q8_0"], tmp_path)
    assert [variant.manifest.backend for variant in made] == ["bnb-nf4", "gguf-q8_0"]
    assert (place / "fluxconv.json").stat().st_mtime_ns == before
    assert not (place / JOURNAL_NAME).exists()


def test_a_variant_of_other_weights_is_not_taken_for_the_same(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """A fine-tune has the same name, sizes and settings, and another hash."""
    source = changed_copy(tiny_checkpoint, tmp_path)
    shutil.copytree(tiny_variants["bnb-nf4"].root, tmp_path / "out" / "tiny-flux-bnb-nf4")
    with pytest.raises(OutputExists, match="other weights"):
        quantize(open_checkpoint(source), ["bnb-nf4"], tmp_path / "out")


class StopsAt(Silent):
    """Raises Ctrl-C's exception when it hears of a weight."""

    def __init__(self, weight: str) -> None:
        self.weight = weight
        self.notes: list[str] = []

    def advance(self, amount: int, item: str = "") -> None:
        if item == self.weight:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


MIDDLE = "transformer_blocks.1.attn.to_k.weight"


def changed_copy(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """The checkpoint with the last bit of a weight flipped, under the same name and dates."""
    source = tmp_path / "changed" / checkpoint.root.name
    shutil.copytree(checkpoint.root, source)
    flip(source, -2)
    return source


def flip(source: Path, at: int) -> None:
    """Flip the lowest bit of one byte of the transformer's file; its size and date stay."""
    file = source / "transformer" / "diffusion_pytorch_model.safetensors"
    times = file.stat()
    with file.open("r+b") as stream:
        stream.seek(at, 2 if at < 0 else 0)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_source_with_a_new_date_starts_over(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "tiny-flux"))
    with pytest.raises(KeyboardInterrupt):
        quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out", progress=StopsAt(MIDDLE))
    flip(source, -2)
    os.utime(source / "transformer" / "diffusion_pytorch_model.safetensors")
    heard = StopsAt("nothing")
    (made,) = quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out", progress=heard)
    assert "starts over" in heard.notes[0]
    (fresh,) = quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "fresh")
    assert files_of(made.root) == files_of(fresh.root)


def test_source_changed_behind_its_date_is_found_by_its_hash(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "tiny-flux"))
    with pytest.raises(KeyboardInterrupt):
        quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out", progress=StopsAt(MIDDLE))
    first = next(iter(open_checkpoint(source).components["transformer"].tensors.values()))
    flip(source, first.offset)
    with pytest.raises(SourceChanged, match="start over"):
        quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out")
    (made,) = quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out")
    (fresh,) = quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "fresh")
    assert files_of(made.root) == files_of(fresh.root)


def test_source_changed_while_it_is_read(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_checkpoint.root, tmp_path / "tiny-flux"))

    class Touches(Silent):
        def start(self, task: str, total: int, unit: str = "bytes") -> None:
            if task == "Quantizing":
                checkpoint = source / "text_encoder_2" / "model.safetensors"
                with checkpoint.open("ab") as stream:
                    stream.write(b"\0")

    with pytest.raises(SourceChanged, match="changed"):
        quantize(open_checkpoint(source), ["gguf-q8_0"], tmp_path / "out", progress=Touches())
    assert not (tmp_path / "out").exists()


def test_interrupted_command_goes_on(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """Ctrl-C while it works: exit code 130, one sentence; the same command then ends well."""
    words = ["quantize", str(tiny_checkpoint.root), "--backend", "bnb-nf4", "-o", str(tmp_path)]
    command = [sys.executable, "-m", "fluxconv.commands", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*.partial/*/*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command" in said
    assert "Traceback" not in said
    assert not (tmp_path / "tiny-flux-bnb-nf4").exists()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-flux-bnb-nf4"]
    assert files_of(tmp_path / "tiny-flux-bnb-nf4") == files_of(tiny_variants["bnb-nf4"].root)


def test_no_room_left_is_one_sentence_and_then_goes_on(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    """A limit on a file's size is what a full disk is: the write fails. The old variant stays."""
    place = tmp_path / "tiny-flux-gguf-q8_0"
    shutil.copytree(tiny_variants["gguf-q8_0"].root, place)
    words = ["quantize", str(tiny_checkpoint.root), "--backend", "gguf-q8_0", "--overwrite"]
    command = [sys.executable, "-m", "fluxconv.commands", *words, "-o", str(tmp_path)]
    limit = 3_000_000  # less than the transformer's file

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 3, done.stderr
    assert "no room left" in done.stderr and "same command again" in done.stderr
    open_variant(place).check_hashes(Silent())
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert files_of(place) == files_of(tiny_variants["gguf-q8_0"].root)
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second filesystem")
def test_output_on_another_filesystem(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    output = Path("/dev/shm") / f"fluxconv-{os.getpid()}"
    try:
        (made,) = quantize(tiny_checkpoint, ["gguf-q8_0"], output)
        assert files_of(made.root) == files_of(tiny_variants["gguf-q8_0"].root)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def test_after_a_crash_of_the_machine_only_what_was_synced_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    subject = {"what": "a test"}
    with Journal(path, subject) as journal:
        journal.add("transformer", "a", "0", 2 << 30, {})
        journal.sync(lambda: None)
        journal.add("transformer", "b", "1", 1, {})
        journal.sync(lambda: None)
    assert len(Journal(path, subject)) == 2
    other = tmp_path / "boot"
    other.write_text("another boot")
    monkeypatch.setattr("fluxconv.converters.journal._BOOT_ID", other)
    assert Journal(path, subject).digest("transformer", "a") == "0"
    assert Journal(path, subject).digest("transformer", "b") is None


def test_a_line_cut_short_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    subject = {"what": "a test"}
    with Journal(path, subject) as journal:
        journal.add("transformer", "a", "0", 1, {})
    text = path.read_text()
    with Journal(path, subject) as journal:
        journal.add("transformer", "b", "0", 1, {})
    for cut in range(len(text) + 1, len(path.read_text()) - 1):
        shorter = tmp_path / "shorter"
        shorter.write_text(path.read_text()[:cut])
        found = Journal(shorter, subject)
        assert not found.fresh
        assert len(found) == 1
    assert Journal(path, {"what": "something else"}).fresh


def test_backends_of_one_name_and_other_settings_are_two(tiny_checkpoint: Checkpoint) -> None:
    from fluxconv.converters import plan

    one, other = get_backend("bnb-nf4"), get_backend("bnb-nf4").configured({"skip": ["proj_out"]})
    plans = plan(tiny_checkpoint, [one, other])
    assert len({item.name for item in plans}) == 2
