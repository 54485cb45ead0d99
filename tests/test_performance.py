"""Memory and time are measured in a process of its own; what does not run says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_commands import fluxconv

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.checkpoint import Opening
from fluxconv.converters.errors import UsageError
from fluxconv.converters.modes import MODES, find_mode, get_mode
from fluxconv.converters.progress import Silent
from fluxconv.validators import Settings
from fluxconv.validators.drawing import SOURCE, VARIANT
from fluxconv.validators.performance import measure
from fluxconv.validators.results import Performance

SETTINGS = Settings(height=64, width=64, steps=2, max_sequence_length=24, prompts=("a red circle",))
#: Python and the libraries alone; the tiny Flux is a few per cent of it.
LIBRARIES = 200_000_000


class Steps(Silent):
    """Counts steps."""

    def __init__(self) -> None:
        self.done = self.total = 0

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self.total = total

    def advance(self, amount: int, item: str = "") -> None:
        self.done += amount


def check_figures(found: Performance) -> None:
    assert not found.why
    assert found.pictures == 2
    assert found.load_seconds and found.seconds and found.seconds > 0
    assert found.memory_loaded and found.memory_peak
    assert LIBRARIES < found.memory_loaded < found.memory_peak < 10 * LIBRARIES


@pytest.mark.slow
def test_source_is_measured_like_a_variant(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    steps = Steps()
    opening = tiny_checkpoint.opening
    source = measure(opening, SOURCE, "cpu", SETTINGS, steps, pictures=2)
    check_figures(source)
    assert source.execution == {} and source.compile_seconds is None
    assert steps.done == steps.total == 3 * SETTINGS.steps
    opening = Opening(str(tiny_variants["bnb-nf4"].root))
    variant = measure(opening, VARIANT, "cpu", SETTINGS, Silent(), pictures=2)
    check_figures(variant)
    assert variant.execution["transformer"].mode == "decoded"
    assert variant.execution["text_encoder_2"].mode == "native"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bnb-nf4", "torchao-int8"])
def test_compiling_is_counted_apart(name: str, tiny_variants: dict[str, Variant]) -> None:
    opening = Opening(str(tiny_variants[name].root))
    mode = get_mode("compile")
    if mode.cannot_run("cpu"):
        pytest.skip("no C++ compiler")
    found = measure(opening, VARIANT, "cpu", SETTINGS, Silent(), mode="compile", pictures=2)
    check_figures(found)
    assert found.compile_seconds and found.seconds
    assert found.compile_seconds > 5 * found.seconds


@pytest.mark.parametrize("mode", [mode.name for mode in MODES.values() if mode.offload])
def test_offloading_without_a_gpu_says_why(mode: str, tiny_checkpoint: Checkpoint) -> None:
    found = measure(tiny_checkpoint.opening, SOURCE, "cpu", SETTINGS, Silent(), mode=mode)
    assert "and this runs on a CPU" in found.why
    assert found.seconds is None and found.memory_peak is None


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    opening = Opening(str(tmp_path / "nothing"))
    found = measure(opening, VARIANT, "cpu", SETTINGS, Silent())
    assert "no such folder" in found.why
    assert found.seconds is None


def test_modes_are_every_way_to_combine_offloading_and_compiling() -> None:
    ways = {(mode.offload, mode.compiles) for mode in MODES.values()}
    assert len(ways) == len(MODES) == 6
    assert all(find_mode(m.offload, compiles=m.compiles) is m for m in MODES.values())
    with pytest.raises(UsageError, match="did you mean compile"):
        get_mode("compil")


# The command --------------------------------------------------------------------------------------


def test_benchmark_prints_the_table_and_writes_the_file(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    file = tmp_path / "new" / "figures.json"
    variant = tiny_variants["torchao-int8"]
    done = fluxconv(
        *("benchmark", variant.root, "--reference", tiny_checkpoint.root, "--steps", 1),
        *("--mode", "plain", "--mode", "offload-model", "--pictures", 1, "-o", file),
        *("--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert "memory after loading" in head and "peak memory" in head and "compile seconds" in head
    assert [row.split()[:2] for row in rows[:4]] == [
        [name, mode] for name in ("tiny-flux", variant.name) for mode in ("plain", "offload-model")
    ]
    assert "not run" in rows[1]
    assert sum("this runs on a CPU" in row for row in rows) == 1
    found = json.loads(file.read_text("utf-8"))
    assert [model["name"] for model in found["models"]] == ["tiny-flux", variant.name]
    assert found["models"][1]["bits_per_weight"] == variant.manifest.bits_per_weight
    assert found["machine"]["cores"] > 0 and found["versions"]["torchao"]
    assert not (variant.root / "report.json").exists()


def test_lone_component_cannot_be_measured(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_checkpoint.root / "transformer")
    (variant,) = quantize(source, ["torchao-int8"], tmp_path)
    done = fluxconv("benchmark", variant.root, "--device", "cpu")
    assert done.returncode == 1
    assert "is a lone component, and only a whole pipeline can draw" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--mode", "fast"], 2, "is not one of"),
        (["--pictures", "0"], 2, "--pictures"),
        (["--steps", "0"], 2, "--steps"),
        (["--mode", "offload-group", "--device", "cpu"], 1, "this runs on a CPU"),
        (["-o", "/proc/nowhere/figures.json"], 3, "cannot be written"),
    ],
)
def test_bad_words_of_benchmark_get_one_sentence(
    words: list[str], code: int, said: str, tiny_variants: dict[str, Variant]
) -> None:
    done = fluxconv("benchmark", tiny_variants["torchao-int8"].root, *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
