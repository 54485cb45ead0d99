"""Validates the tiny Flux in every backend that runs here, and draws what was measured.

`python docs/validation_measured.py measure FOLDER` makes and validates the variants in FOLDER (what
is there is taken as it is) and writes `validation_measured.json`; `... draw` writes the picture
from it, `... table` prints the table of `validation.md`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
MEASURED = HERE / "validation_measured.json"
PICTURE = HERE / "validation_measured.png"
TINY = HERE.parent / "tests" / "checkpoints" / "tiny-flux"
#: Field, title, whether its axis is logarithmic.
AXES = (
    ("weights", "weight error, transformer", True),
    ("text", "text error (T5)", True),
    ("steps", "step error", True),
    ("psnr", "PSNR, dB", False),
    ("ssim", "SSIM", False),
    ("flip", "FLIP", False),
)
#: Bits per weight from which on a variant is the source, cast: it would flatten the others.
MOST = 15
COLOURS = {"gguf": "#1f6fb4", "bnb": "#c2571a", "torchao": "#3f8f4f", "quanto": "#7d57b1"}


def measure(folder: Path) -> None:
    """Make and validate the variants; write what was measured, fewest bits first."""
    from fluxconv.converters import open_checkpoint, quantize
    from fluxconv.converters.backends import all_backends
    from fluxconv.validators import Options, load_settings, validate

    checkpoint = open_checkpoint(TINY)
    names = [name for name, backend in all_backends().items() if "cpu" in backend.quantizes_on]
    variants = quantize(checkpoint, names, folder)
    settings = load_settings(TINY, preset="standard")
    reports = validate(
        variants, checkpoint, settings=settings, options=Options(modes=(), keep_going=True)
    )
    rows = [
        {
            "backend": report.backend,
            "bits": report.bits_per_weight,
            "weights": report.weights["transformer"].relative_rms,
            "t5_weights": report.weights["text_encoder_2"].relative_rms,
            "text": report.text_encoder.relative_rms,
            "steps": report.steps.relative_rms,
            "steps_max": report.steps.relative_rms_max,
            **{name: summary.mean for name, summary in report.pictures.summary.items()},
            "decoded": report.is_decoded,
            "passed": report.verdict.passed,
        }
        for report in reports
        if report.weights and report.text_encoder and report.steps and report.pictures
    ]
    assert len(rows) == len(names)
    floor = reports[0].noise_floor
    assert floor and floor.other
    noise = {name: summary.mean for name, summary in floor.other.items()}
    found = {
        "versions": reports[0].versions,
        "noise_floor": {"steps": floor.steps_rms, **noise},
        "rows": sorted(rows, key=lambda row: float(str(row["bits"]))),
    }
    MEASURED.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def draw() -> None:
    """Bits per weight against each measure; the noise floor is the dashed line."""
    found = json.loads(MEASURED.read_text("utf-8"))
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.4), layout="constrained")
    for axis, (name, title, logarithmic) in zip(axes.flat, AXES, strict=True):
        for family in ("gguf", "bnb", "torchao", "quanto", "other"):
            rows = [row for row in found["rows"] if _family(row) == family and row["bits"] < MOST]
            bits, values = [row["bits"] for row in rows], [row[name] for row in rows]
            colour = COLOURS.get(family, "#555555")
            label = {"bnb": "bitsandbytes", "other": "layerwise fp8"}.get(family, family)
            axis.scatter(bits, values, 34, colour, label=label, zorder=3)
        floor = found["noise_floor"].get(name)
        if floor is not None:
            axis.axhline(floor, color="#999999", linestyle="--", linewidth=1, zorder=1)
        if logarithmic:
            axis.set_yscale("log")
        axis.set(title=title, xlabel="bits per weight")
        axis.grid(alpha=0.25)
    axes[0, 0].legend(frameon=False)
    figure.suptitle("The tiny Flux in every backend; dashed: the source in float32 against itself")
    figure.savefig(PICTURE, dpi=110)


def table() -> None:
    """The table, fewest bits first."""
    found = json.loads(MEASURED.read_text("utf-8"))
    print(
        "| backend | bits/weight | weight error | T5 weights | text error | step error | worst step"
        " | PSNR | SSIM | MS-SSIM | FLIP |"
    )
    print("|---" * 11 + "|")
    for row in found["rows"]:
        psnr = "equal" if row["psnr"] is None else f"{row['psnr']:.1f}"
        errors = ("weights", "t5_weights", "text", "steps", "steps_max")
        print(
            f"| {row['backend']} | {row['bits']:.2f} | "
            + " | ".join(f"{row[name]:.4f}" for name in errors)
            + f" | {psnr} | {row['ssim']:.4f} | {row['ms_ssim']:.4f} | {row['flip']:.4f} |"
        )


def _family(row: dict[str, Any]) -> str:
    first = str(row["backend"]).split("-")[0]
    return first if first in COLOURS else "other"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", folder]:
            measure(Path(folder))
        case ["draw"]:
            draw()
        case ["table"]:
            table()
        case _:
            sys.exit(__doc__)
