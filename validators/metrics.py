"""How alike two pictures are, as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # height, width, 3

_GAUSSIAN_WINDOW = 11  # pixels that skimage's window of sigma 1.5 spans


def psnr(source: Pixels, variant: Pixels) -> float | None:
    """Peak signal-to-noise ratio in dB over all channels; None (infinity) for equal pictures."""
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio

    if np.array_equal(source, variant):
        return None
    return float(peak_signal_noise_ratio(source, variant, data_range=255))


def ssim(source: Pixels, variant: Pixels) -> float:
    """Structural similarity, 1 for equal pictures, averaged over the colour channels.

    With the Gaussian window of Wang et al. 2004 (sigma 1.5), as papers and torchmetrics have it;
    pictures too small for it get the uniform window of 7 pixels.
    """
    from skimage.metrics import structural_similarity

    if min(source.shape[:2]) < _GAUSSIAN_WINDOW:
        return float(
            structural_similarity(source, variant, data_range=255, channel_axis=-1, win_size=7)
        )
    return float(
        structural_similarity(
            source,
            variant,
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def is_flat(pixels: Pixels) -> bool:
    """Whether the picture is of one colour, give or take one level of rounding."""
    return int((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1))).max()) <= 1
