"""Numbers as the page shows them. A measurement that nothing holds is a dash."""

from __future__ import annotations

MISSING = "–"
EQUAL = "equal"  # what a metric says of pictures that do not differ


def size(count: float) -> str:
    """Bytes in the decimal units in which disks and downloads count."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.{2 if count < 10 * scale else 1}f}\u00a0{unit}"
    return f"{count:.0f} bytes"


def percent(share: float) -> str:
    """A share with three significant digits, however small."""
    if share == 0:
        return "0\u00a0%"
    if share >= 10:
        return f"{100 * share:.0f}\u00a0%"
    if share < 1e-5:
        return f"{100 * share:.1e}\u00a0%"
    return f"{100 * share:#.3g}\u00a0%".replace(".\u00a0%", "\u00a0%")


def seconds(count: float) -> str:
    """Three digits below a minute, else minutes and seconds."""
    if count < 60:
        return f"{count:.3g}\u00a0s"
    minutes, rest = divmod(round(count), 60)
    return f"{minutes}\u00a0min {rest}\u00a0s"


def number(value: float) -> str:
    """A number of unknown kind: as many digits as say something."""
    return f"{value:.4g}"
