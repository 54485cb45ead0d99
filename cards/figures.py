"""Numbers as a card shows them. A measurement that nothing holds is a dash."""

from __future__ import annotations

from fluxconv.validators.report import PicturesResult

MISSING = "–"


def size(count: int) -> str:
    """Bytes in the decimal units in which disks, downloads and the Hub count."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            digits = 2 if count < 10 * scale else 1
            return f"{count / scale:.{digits}f} {unit}"
    return f"{count} bytes"


def percent(share: float | None) -> str:
    """A share with three significant digits."""
    if share is None:
        return MISSING
    return f"{100 * share:#.3g} %" if share else "0 %"


def psnr(pictures: PicturesResult | None) -> str:
    """Mean and lowest PSNR; pictures that are equal have none."""
    if pictures is None:
        return MISSING
    if pictures.psnr_mean is None or pictures.psnr_min is None:
        return "∞ (equal)"
    return f"{pictures.psnr_mean:.1f} dB (lowest {pictures.psnr_min:.1f})"


def ssim(pictures: PicturesResult | None) -> str:
    """Mean and lowest SSIM."""
    if pictures is None:
        return MISSING
    return f"{pictures.ssim_mean:.3f} (lowest {pictures.ssim_min:.3f})"
