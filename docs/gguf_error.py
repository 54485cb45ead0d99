"""Draw `gguf_error.png`, the error of every GGUF type against its bits a weight, ours and ggml's.

    python benchmarks/gguf_encoders.py --json docs/gguf_error.json
    python docs/gguf_error.py

needs matplotlib (`benchmarks/requirements.txt`). Normal weights; on the right the same errors as
parts of that of ggml's better path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

HERE = Path(__file__).parent
# Okabe and Ito's colours, which the colour-blind can tell apart; shapes differ as well. The ground
# is white, so that the picture can be read on a dark page.
STYLES: dict[str, dict[str, Any]] = {
    "C plain": {"marker": "D", "color": "#767676", "markerfacecolor": "none"},
    "C searching": {"marker": "o", "color": "#000000", "markerfacecolor": "none"},
    "fast": {"marker": "^", "color": "#D55E00"},
    "best": {"marker": "s", "color": "#0072B2"},
}
LABELS = {
    "C plain": "ggml, plain",
    "C searching": "ggml, with importance of ones",
    "fast": "fluxconv, fast",
    "best": "fluxconv, best",
}
#: Points from a type's marks to its name, where others have nearly as many bits.
BESIDE = {
    "IQ4_XS": (-48, -22),
    "Q4_0": (-8, 18),
    "IQ4_NL": (-48, -42),
    "Q4_K": (2, -26),
    "Q4_1": (9, 6),
    "Q5_0": (-6, 16),
    "Q5_K": (-14, -22),
}
LINE = {"arrowstyle": "-", "color": "#767676", "linewidth": 0.6}
TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


def main() -> None:
    measured = json.loads((HERE / "gguf_error.json").read_text())
    measured.sort(key=lambda each: (each["bits"], -each["errors"]["normal"]["best"]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 6), width_ratios=(3, 2))
    draw_errors(left, measured)
    draw_ratios(right, measured)
    figure.legend(
        *left.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=10
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(HERE / "gguf_error.png", dpi=110)


def draw_errors(axes: Axes, measured: list[dict[str, Any]]) -> None:
    """Error, on a logarithmic scale, against bits."""
    bits = [each["bits"] for each in measured]
    for shift, (path, style) in enumerate(STYLES.items()):
        errors = [each["errors"]["normal"][path] for each in measured]
        # Side by side, because on this scale most would lie on one another.
        places = [place + 0.05 * (shift - 1.5) for place in bits]
        axes.plot(places, errors, linestyle="none", label=LABELS[path], markersize=6, **style)
    for each in measured:
        axes.annotate(
            each["type_name"],
            (each["bits"], each["errors"]["normal"]["best"]),
            xytext=BESIDE.get(each["type_name"], (9, 2)),
            textcoords="offset points",
            fontsize=9,
            arrowprops=LINE if each["type_name"] in BESIDE else None,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda tick, _: f"{100 * tick:g} %")
    axes.set_xlim(2.3, 9.1)
    axes.set_xlabel("bits a weight")
    axes.set_title("Relative error, normal weights", fontsize=11)
    axes.grid(alpha=0.3)


def draw_ratios(axes: Axes, measured: list[dict[str, Any]]) -> None:
    """Each type's errors as parts of that of ggml's better path."""
    names = [each["type_name"] for each in measured]
    axes.axvline(1, color="#000000", linewidth=0.8)
    for path, style in STYLES.items():
        errors = [each["errors"]["normal"] for each in measured]
        ratios = [each[path] / min(each["C plain"], each["C searching"]) for each in errors]
        axes.plot(ratios, names, linestyle="none", markersize=6, **style)
    axes.invert_yaxis()
    axes.set_xlabel("error / ggml's better path")
    axes.set_title("The same, against ggml", fontsize=11)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
