"""Scores of pictures agree with outside judges, and say what they cannot tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fluxconv.validators import metrics, similarity
from fluxconv.validators.metrics import METRICS, compare, is_flat, pixels_of, scores, summarise

Pixels = NDArray[np.uint8]
SIZES = [(64, 64), (64, 96), (200, 184), (24, 40), (8, 16)]
FORMULAS = ("psnr", "ssim", "ms_ssim", "flip")


def pair(height: int, width: int, strength: float = 25) -> tuple[Pixels, Pixels]:
    """A smooth picture with an edge in it, and the same with noise and a shade added."""
    random = np.random.default_rng(height * width)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 9 + k) + np.cos(columns / (7 + k)) for k in range(3)]
    picture = 128 + 50 * np.stack(waves, -1) + 20 * (columns > width // 3)[..., None]
    noisy = picture * 0.95 + random.normal(0, strength, picture.shape)
    return picture.clip(0, 255).astype(np.uint8), noisy.clip(0, 255).astype(np.uint8)


# Outside judges ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_psnr_is_that_of_skimage(size: tuple[int, int]) -> None:
    first, second = pair(*size)
    assert similarity.psnr(first, second) == pytest.approx(
        peak_signal_noise_ratio(first, second, data_range=255), rel=1e-6
    )


@pytest.mark.parametrize("size", SIZES)
def test_ssim_is_that_of_skimage_on_pictures_mirrored_at_the_border(size: tuple[int, int]) -> None:
    # skimage leaves out windows that touch the border: what is added here is what it leaves out.
    window = 11 if min(size) >= 11 else 7
    first, second = (mirrored(each, window // 2) for each in pair(*size))
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(
        first,
        second,
        data_range=255,
        channel_axis=-1,
        **(gaussian if window == 11 else {"win_size": 7, "use_sample_covariance": False}),
    )
    assert 0.1 < expected < 0.9
    assert similarity.ssim(*pair(*size)) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("size", "scales"), [((200, 184), 5), ((104, 184), 4), ((64, 64), 3), ((24, 96), 2)]
)
def test_ms_ssim_is_that_of_the_paper(size: tuple[int, int], scales: int) -> None:
    first, second = pair(*size)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    x, y = first / 255, second / 255
    factors = []
    for _ in range(scales):
        structure, whole = structure_and_whole(x, y)
        factors.append(structure)
        x, y = halved(x), halved(y)
    factors[-1] = whole
    expected = float(np.prod(np.array(factors) ** (weights / weights.sum())))
    assert similarity.ms_ssim_scales(*size) == scales
    assert 0.1 < expected < 0.98
    assert similarity.ms_ssim(first, second) == pytest.approx(expected, abs=2e-5)


def test_ms_ssim_of_a_picture_with_room_for_one_scale_is_ssim() -> None:
    for size in ((16, 64), (8, 8)):
        assert similarity.ms_ssim_scales(*size) == 1
        assert similarity.ms_ssim(*pair(*size)) == similarity.ssim(*pair(*size))


def test_inverted_pictures_have_a_negative_ssim_and_an_ms_ssim_of_zero() -> None:
    first, _ = pair(200, 200)
    inverted = (255 - first).astype(np.uint8)
    assert similarity.ssim(first, inverted) < 0 and similarity.ms_ssim(first, inverted) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((255, 0, 0), (0, 255, 0)),
        ((120, 130, 140), (123, 128, 150)),
        ((10, 200, 90), (10, 200, 90)),
    ],
)
def test_flip_of_plain_colours_is_that_of_the_paper(
    first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    # Without edges and patterns only the colours are left of FLIP, and those can be done by hand.
    plain = [np.full((24, 32, 3), colour, np.uint8) for colour in (first, second)]
    found, error_map = similarity.flip(*plain)
    assert found == pytest.approx(flip_of_colours(first, second), abs=2e-4)
    assert len(np.unique(error_map.reshape(-1, 3), axis=0)) == 1


def test_flip_map_is_dark_where_nothing_differs_and_bright_where_it_does() -> None:
    first, _ = pair(64, 96)
    second = first.copy()
    second[20:40, 60:80] = 255 - second[20:40, 60:80]
    error, error_map = similarity.flip(first, second)
    assert error_map.shape == first.shape and error_map.dtype == np.uint8
    assert (error_map[:, :30] == (0, 0, 4)).all()  # magma's first colour
    assert error_map[25:35, 65:75].astype(int).sum(-1).min() > 250
    assert 0 < error < 0.5


# What holds for each score -----------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("size", SIZES)
def test_scores_are_symmetric_repeatable_and_best_for_equal_pictures(
    name: str, size: tuple[int, int]
) -> None:
    metric, (first, second) = METRICS[name], pair(*size)
    found = metric.measure(first, second, "")
    assert found is not None and metric.measure(first, second, "") == found
    assert metric.measure(second, first, "") == pytest.approx(found, abs=2e-6)
    assert metric.measure(first, first, "") == {"psnr": None, "flip": 0.0}.get(
        name, pytest.approx(1, abs=1e-6)
    )


@pytest.mark.parametrize("name", FORMULAS)
def test_scores_get_worse_with_more_noise(name: str) -> None:
    metric = METRICS[name]
    found = [metric.measure(*pair(96, 64, strength), "") for strength in (2, 8, 30, 60)]
    values = [value for value in found if value is not None]
    assert len(values) == 4
    assert values == sorted(values, reverse=metric.higher_is_better)
    assert metric.worst(values) == values[-1]


def test_one_call_gives_all_scores_as_recorded_and_the_map() -> None:
    first, second = pair(64, 64)
    found = compare(first, second, "a prompt")
    assert found.scores == scores(first, second, "a prompt")
    assert list(found.scores) == [name for name in METRICS if name not in metrics.missing_metrics()]
    for name in FORMULAS:
        value, exact = found.scores[name], METRICS[name].measure(first, second, "")
        assert value is not None and value == pytest.approx(
            exact, abs=1e-2 if name == "psnr" else 1e-5
        )
        assert value == round(value, METRICS[name].digits + 1)
    assert (found.flip_map == similarity.flip(first, second)[1]).all()
    assert scores(first, first, "")["psnr"] is None


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name and metric.title and metric.meaning.endswith(".")
        assert metric.paper
    assert METRICS["psnr"].format(31.26) == "31.3 dB" and METRICS["psnr"].format(None) == "equal"
    assert METRICS["flip"].format(0.05) == "0.0500"


def test_summary_has_the_worst_in_each_direction_and_leaves_equal_pictures_out() -> None:
    found = summarise([{"psnr": 30.0, "flip": 0.1}, {"psnr": None, "flip": 0.0}])
    assert (found["psnr"].mean, found["psnr"].worst) == (30.0, 30.0)
    assert (found["flip"].mean, found["flip"].worst) == (0.05, 0.1)
    assert summarise([{"psnr": 30.0}, {"psnr": 20.5}])["psnr"].worst == 20.5
    equal = summarise([{"psnr": None}, {"psnr": None}])["psnr"]
    assert equal.mean is None and equal.worst is None
    assert summarise([]) == {}


def test_flat_pictures_are_told_from_pictures() -> None:
    assert not is_flat(pair(8, 8)[0]) and is_flat(np.full((8, 8, 3), 200, np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_pixels_of_a_file_have_three_colours(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (5, 3)).save(tmp_path / "a.png")
    found = pixels_of(tmp_path / "a.png")
    assert found.shape == (3, 5, 3) and found.dtype == np.uint8


def test_knowing_the_metrics_loads_no_library() -> None:
    heavy = "{'torch', 'numpy', 'torchmetrics', 'flip_evaluator', 'transformers'}"
    code = (
        "import sys; from fluxconv.validators.metrics import METRICS; "
        f"found = {heavy} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Plain second implementations --------------------------------------------------------------------


def mirrored(pixels: Pixels, border: int) -> Pixels:
    return np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="reflect")


def halved(x: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    return x[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))


def structure_and_whole(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of contrast times structure over whole windows, and of SSIM, borders mirrored."""

    def blurred(z: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(z, (1.5, 1.5, 0), mode="mirror", radius=(5, 5, 0))

    mean_x, mean_y = blurred(x), blurred(y)
    covariance = blurred(x * y) - mean_x * mean_y
    variances = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    structure = (2 * covariance + 0.03**2) / (variances + 0.03**2)
    light = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    return float(structure[5:-5, 5:-5].mean()), float((structure * light).mean())


def flip_of_colours(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """FLIP of two colours: Andersson et al. 2020, section 4.1, with its constants."""

    def linear(colour: tuple[int, int, int]) -> NDArray[np.float64]:
        x = np.array(colour) / 255
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)

    matrix = np.array(
        [
            [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
            [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
            [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
        ]
    )
    white = matrix.sum(1)

    def hunted(colour: tuple[int, int, int]) -> NDArray[np.float64]:
        x = matrix @ linear(colour) / white
        f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
        light = 116 * f[1] - 16
        # Colourfulness counts less in the dark (Hunt).
        return np.array(
            [light, 500 * (f[0] - f[1]) * light / 100, 200 * (f[1] - f[2]) * light / 100]
        )

    def distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
        """HyAB, to the power of 0.7."""
        light, *colours = hunted(a) - hunted(b)
        return float((abs(light) + np.hypot(*colours)) ** 0.7)

    most = distance((0, 255, 0), (0, 0, 255))
    found = distance(first, second)
    knee = 0.4 * most
    if found < knee:
        return 0.95 / knee * found
    return 0.95 + (found - knee) / (most - knee) * 0.05
