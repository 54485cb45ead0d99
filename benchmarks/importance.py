"""What importance does to the tiny Flux's output, at the same bytes.

    python benchmarks/importance.py

Importance is measured as `fluxconv importance` does it, on the checkpoint's own prompts. For each
GGUF type the checkpoint is quantized without it and with it, and both variants predict, from the
very inputs that the source had at every step of drawing other captions, what the source predicted.
The table gives the relative RMS error of the predicted velocity: with only the transformer
quantized, only T5, and both. The captions are of scenes that neither training nor the importance
has seen.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import astuple
from pathlib import Path

import click

TESTS = Path(__file__).parent.parent / "tests"
sys.path += [str(TESTS), str(TESTS / "checkpoints")]

from shapes import held_out_sample  # noqa: E402
from teacher_forced import Teacher  # noqa: E402

from fluxconv.converters import open_checkpoint, quantize  # noqa: E402
from fluxconv.converters.backends import get_backend  # noqa: E402
from fluxconv.converters.libraries import hush  # noqa: E402
from fluxconv.validators.calibration import calibration_settings  # noqa: E402
from fluxconv.validators.importance import measure_importance  # noqa: E402

BACKENDS = ("gguf-q2_k", "gguf-q3_k_s", "gguf-q4_k_s", "gguf-q5_k_s", "gguf-q6_k")


@click.command(help=__doc__)
@click.option("--backend", "backends", multiple=True, default=BACKENDS, show_default=True)
@click.option("--effort", type=click.Choice(["fast", "best"]), default="best", show_default=True)
@click.option("--captions", default=24, show_default=True, help="How many to be tested on.")
def main(backends: tuple[str, ...], effort: str, captions: int) -> None:
    hush()
    source = open_checkpoint(TESTS / "checkpoints" / "tiny-flux")
    prompts = [caption for _, caption in held_out_sample(captions, seed=7)]
    assert not set(prompts) & set(calibration_settings(source.root).prompts)
    teacher = Teacher(source, prompts)
    click.echo(
        f"{captions} captions, effort {effort}. Error without importance, with it, and their "
        "ratio:\n\n| type | bytes | transformer | T5 | both |\n|---|---:|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="fluxconv-bench-") as name:
        folder = Path(name)
        file = folder / "importance.safetensors"
        measure_importance(source, file)
        for backend in backends:
            plain = get_backend(backend).configured({"effort": effort})
            weighed = plain.configured({"effort": effort, "importance": str(file)})
            variants = quantize(source, [plain, weighed], folder)
            sizes = {
                sum(t.nbytes for plan in variant.component_plans().values() for t in plan.tensors)
                for variant in variants
            }
            (nbytes,) = sizes  # importance costs no byte
            without, with_it = (astuple(teacher.error(variant)) for variant in variants)
            cells = [
                f"{before:.4f}, {after:.4f}, {after / before:.3f}"
                for before, after in zip(without, with_it, strict=True)
            ]
            click.echo(f"| {backend} | {nbytes} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
