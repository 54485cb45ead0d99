"""How alike two pictures are, by formula: PSNR, SSIM, MS-SSIM and FLIP.

Pictures are uint8 arrays (height, width, 3) in sRGB. The libraries compute; here is what they are
given. None of these asks which picture is the source: they are symmetric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # height, width, 3

_GAUSSIAN_WINDOW = 11  # pixels across, of sigma 1.5
_UNIFORM_WINDOW = 7
# Wang et al. 2003, table 1: the weight of each scale, the finest first.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Scales by the shorter side from which on the window fits into the coarsest of them. (It would fit
# four from 88 on, but torchmetrics takes four from 99 on.)
_SCALES_FROM = ((176, 5), (99, 4), (44, 3), (22, 2), (0, 1))


def psnr(source: Pixels, variant: Pixels) -> float | None:
    """Peak signal-to-noise ratio in dB over all channels; None (infinity) for equal pictures."""
    import numpy as np
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio

    if np.array_equal(source, variant):
        return None
    first, second = (torch.from_numpy(each.astype(np.float64)) for each in (variant, source))
    return float(peak_signal_noise_ratio(first, second, data_range=255.0))


def ssim(source: Pixels, variant: Pixels) -> float:
    """Structural similarity (Wang et al. 2004), 1 for equal pictures, over all colour channels.

    As torchmetrics has it: a Gaussian window of sigma 1.5, and the picture mirrored at its border.
    Pictures less than 11 pixels across get a uniform window of 7 pixels.
    """
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    small = min(source.shape[:2]) < _GAUSSIAN_WINDOW
    score = structural_similarity_index_measure(
        _batch(variant),
        _batch(source),
        gaussian_kernel=not small,
        kernel_size=_UNIFORM_WINDOW if small else _GAUSSIAN_WINDOW,
        data_range=1.0,
    )
    assert isinstance(score, torch.Tensor)  # it is a pair only if more is asked for
    return float(score)


def ms_ssim(source: Pixels, variant: Pixels) -> float:
    """SSIM on five scales, each half the size of the one before (Wang et al. 2003).

    Pictures with a side below 176 pixels get as many scales as fit (`ms_ssim_scales`), their
    weights divided by their sum: such scores compare only with those of the same size. Negative
    similarity, which has no such power, counts as 0.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    weights = _SCALE_WEIGHTS[: ms_ssim_scales(*source.shape[:2])]
    if len(weights) == 1:
        return max(0.0, ssim(source, variant))
    return float(
        multiscale_structural_similarity_index_measure(
            _batch(variant),
            _batch(source),
            kernel_size=_GAUSSIAN_WINDOW,
            data_range=1.0,
            betas=tuple(weight / sum(weights) for weight in weights),
        )
    )


def ms_ssim_scales(height: int, width: int) -> int:
    """How many of its five scales MS-SSIM has in a picture of this size."""
    return next(count for side, count in _SCALES_FROM if min(height, width) >= side)


def flip(source: Pixels, variant: Pixels) -> tuple[float, Pixels]:
    """FLIP (Andersson et al. 2020): its mean error, 0 to 1, and its map in magma's colours.

    What somebody sees who flips between the two on a screen of 67 pixels a degree: 70 cm away from
    one 70 cm wide with 3840 pixels across. Dark is no difference.
    """
    import numpy as np
    from flip_evaluator import evaluate  # type: ignore[import-untyped]

    levels = [np.ascontiguousarray(pixels, np.float32) / 255 for pixels in (source, variant)]
    error_map, mean, _ = evaluate(*levels, "LDR")
    return float(mean), (error_map * 255).round().astype(np.uint8)


def _batch(pixels: Pixels) -> torch.Tensor:
    """Shape (1, 3, height, width), 0 to 1. In float64, which takes many times as long: in float32
    the variance of a flat area is rounding alone, and equal pictures differ by 0.001."""
    import numpy as np
    import torch

    return torch.from_numpy(pixels.astype(np.float64) / 255).permute(2, 0, 1)[None]
