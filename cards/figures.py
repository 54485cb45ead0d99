"""Numbers as a card shows them. A measurement that nothing holds is a dash."""

from __future__ import annotations

from dataclasses import dataclass

from fluxconv.validators.results import Machine, Summary

MISSING = "–"


@dataclass(frozen=True)
class Score:
    """How one of the pictures' scores is written, by its name in a report."""

    name: str
    title: str
    digits: int
    unit: str = ""
    explained: str = ""

    def text(self, summary: Summary | None) -> str:
        """Mean and worst over all pictures; PSNR of equal pictures is infinite."""
        if summary is None:
            return MISSING
        if summary.mean is None or summary.worst is None:
            return "∞ (equal)"
        mean, worst = (f"{value:.{self.digits}f}" for value in (summary.mean, summary.worst))
        return f"{mean}{self.unit}" + (f" (worst {worst})" if worst != mean else "")


SCORES = (
    Score(
        "psnr", "PSNR", 1, " dB", "in dB, of each picture against the source's: higher is nearer"
    ),
    Score("ssim", "SSIM", 3, "", "structural similarity: 1 is equal"),
    Score("ms_ssim", "MS-SSIM", 3, "", "the same at several sizes: 1 is equal"),
    Score("flip", "FLIP", 3, "", "the difference seen on flipping between both: 0 is equal"),
    Score("lpips", "LPIPS", 3, "", "the difference between a network's features: 0 is equal"),
)
PSNR, SSIM = SCORES[:2]


def size(count: int) -> str:
    """Bytes in the decimal units in which disks, downloads and the Hub count."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            digits = 2 if count < 10 * scale else 1
            return f"{count / scale:.{digits}f} {unit}"
    return f"{count} bytes"


def memory(count: int | None) -> str:
    """Bytes of memory that were measured."""
    return MISSING if count is None else size(count)


def seconds(value: float | None) -> str:
    """Seconds with three significant digits, whole ones from a hundred on."""
    if value is None:
        return MISSING
    return f"{value:.0f} s" if value >= 100 else f"{value:#.3g} s".replace(". s", " s")


def percent(share: float | None) -> str:
    """A share with three significant digits."""
    if share is None:
        return MISSING
    return f"{100 * share:#.3g} %" if share else "0 %"


def machine(found: Machine) -> str:
    """What measured, in a few words."""
    own = f"{found.processor}, {found.cores} cores, {size(found.memory)} of memory"
    if found.gpu is None:
        return f"{own}, {found.system}"
    gpu_memory = f" with {size(found.gpu_memory)}" if found.gpu_memory else ""
    return f"{found.gpu}{gpu_memory} ({own}, {found.system})"
