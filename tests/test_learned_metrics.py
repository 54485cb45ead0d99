"""Scores from trained weights: never fetched, never from other weights than the pinned ones."""

from __future__ import annotations

import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import correlate2d
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from fluxconv.validators import learned_metrics, metrics
from fluxconv.validators.learned_metrics import ALEXNET, CLIP, ImageText, Lpips

TOKENIZER = Path(__file__).parent / "checkpoints" / "tiny-flux" / "tokenizer"
ALEXNET_SHAPES = {
    0: (64, 3, 11, 11),
    3: (192, 64, 5, 5),
    6: (384, 192, 3, 3),
    8: (256, 384, 3, 3),
    10: (256, 256, 3, 3),
}


def picture(seed: int, height: int = 32, width: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Where the weights come from ---------------------------------------------------------------------


@pytest.fixture
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Caches of the test's own, and no network: asking for an address is an error."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was asked for")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


def put_alexnet(caches: Path, content: bytes) -> None:
    folder = caches / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ALEXNET.name).write_bytes(content)


def put_clip(caches: Path, model: Path) -> None:
    place = "models--openai--clip-vit-large-patch14/snapshots/" + learned_metrics.CLIP_REVISION
    shutil.copytree(model, caches / "hub" / place)


def test_without_weights_there_is_no_score_and_no_request(empty_caches: Path) -> None:
    found = metrics.compare(picture(0), picture(1), "a prompt")
    assert set(found.scores) == {"psnr", "ssim", "ms_ssim", "flip"}
    why = metrics.missing_metrics()
    assert set(why) == {"lpips", "image_text"}
    assert ALEXNET.name in why["lpips"] and "check_hash=True" in why["lpips"]
    assert f"--revision {learned_metrics.CLIP_REVISION}" in why["image_text"]


def test_weights_of_another_hash_are_refused_unread(empty_caches: Path, tiny_clip: Path) -> None:
    put_alexnet(empty_caches, pickle.dumps(_Dangerous()))
    put_clip(empty_caches, tiny_clip)
    why = metrics.missing_metrics()
    assert "another hash" in why["lpips"] and "another hash" in why["image_text"]
    assert set(metrics.scores(picture(0), picture(1), "")) == {"psnr", "ssim", "ms_ssim", "flip"}


def test_a_file_that_is_no_plain_tensors_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / ALEXNET.name
    torch.save({"features.0.weight": _Dangerous()}, file)
    with pytest.raises(pickle.UnpicklingError):
        Lpips(file, file)


def test_the_pinned_weights_of_lpips_are_those_that_torchmetrics_carries() -> None:
    _, linear = learned_metrics._lpips_files()
    assert learned_metrics.LPIPS_LINEAR.refusal(linear) is None
    assert ALEXNET.sha256.startswith(ALEXNET.name.removesuffix(".pth").rsplit("-", 1)[1])


def test_weights_with_the_pinned_hash_are_used(
    empty_caches: Path, tiny_clip: Path, alexnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_alexnet(empty_caches, alexnet.read_bytes())
    put_clip(empty_caches, tiny_clip)
    for name, weights, file in (
        ("ALEXNET", ALEXNET, alexnet),
        ("CLIP", CLIP, tiny_clip / CLIP.name),
    ):
        pinned = learned_metrics.Weights(
            weights.name, learned_metrics.hash_file(file).sha256, weights.fetch
        )
        monkeypatch.setattr(learned_metrics, name, pinned)
    assert metrics.missing_metrics() == {}
    found = metrics.scores(picture(0), picture(1), "a red circle")
    linear = learned_metrics._lpips_files()[1]
    lpips = Lpips(alexnet, linear).distance(picture(0), picture(1))
    assert found["lpips"] == pytest.approx(lpips, abs=1e-5)
    assert found["image_text"] is not None
    # Too small for AlexNet, and so without that score; everything else is there.
    small = metrics.scores(picture(0, 16, 64), picture(1, 16, 64), "a red circle")
    assert set(found) - set(small) == {"lpips"}


class _Dangerous:
    def __reduce__(self) -> Any:
        return pytest.fail, ("code in a file of weights was run",)


# What they compute -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet's convolutions with random weights, in torchvision's names."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for index, shape in ALEXNET_SHAPES.items():
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"features.{index}.weight"] = torch.randn(shape, generator=random) / fan_in**0.5
        state[f"features.{index}.bias"] = torch.randn(shape[0], generator=random) / 10
    file = tmp_path_factory.mktemp("alexnet") / "random.pth"
    torch.save(state, file)
    return file


def test_lpips_is_that_of_the_paper(alexnet: Path) -> None:
    linear = learned_metrics._lpips_files()[1]
    score = Lpips(alexnet, linear)
    first, second = picture(0, 32, 33), picture(1, 32, 33)
    expected = 0.0
    state, weights = torch.load(alexnet), torch.load(linear, map_location="cpu")
    features = [plain_alexnet(each, state) for each in (first, second)]
    for index, (one, other) in enumerate(zip(*features, strict=True)):
        one, other = (x / np.sqrt((x**2).sum(0)).clip(1e-10) for x in (one, other))
        channels = weights[f"lin{index}.model.1.weight"].numpy().reshape(-1, 1, 1)
        expected += float(((one - other) ** 2 * channels).sum(0).mean())
    assert expected > 0.05
    assert score.distance(first, second) == pytest.approx(expected, rel=1e-4)
    assert score.distance(second, first) == pytest.approx(expected, rel=1e-4)
    assert score.distance(first, first) == 0
    smallest = metrics.METRICS["lpips"].smallest
    assert score.distance(first[:smallest, :smallest], second[:smallest, :smallest]) > 0


def plain_alexnet(
    pixels: NDArray[np.uint8], state: dict[str, torch.Tensor]
) -> list[NDArray[np.float64]]:
    """The five outputs that LPIPS compares, (channels, height, width), one product at a time."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    x = ((pixels / 255 * 2 - 1 - shift) / scale).transpose(2, 0, 1)
    found = []
    for index, (stride, padding) in {
        0: (4, 2),
        3: (1, 2),
        6: (1, 1),
        8: (1, 1),
        10: (1, 1),
    }.items():
        if index in (3, 6):
            rows, columns = ((side - 3) // 2 + 1 for side in x.shape[1:])
            x = np.array(
                [
                    [x[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((1, 2)) for c in range(columns)]
                    for r in range(rows)
                ]
            ).transpose(2, 0, 1)
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        filters = state[f"features.{index}.weight"].numpy()
        x = np.array(
            [
                sum(correlate2d(plane, part, "valid") for plane, part in zip(x, each, strict=True))
                for each in filters
            ]
        )[:, ::stride, ::stride]
        x = np.maximum(x + state[f"features.{index}.bias"].numpy().reshape(-1, 1, 1), 0)
        found.append(x)
    return found


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of a few thousand random weights, saved as the real one is."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    layers = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={
            **layers,
            "num_hidden_layers": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 16,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**layers, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    images.save_pretrained(folder)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    images.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("prompt", ["a red circle", "star " * 60, "", "蓝 <b>\x00"])
def test_image_text_score_is_a_hundred_cosines(prompt: str, tiny_clip: Path) -> None:
    model = CLIPModel.from_pretrained(tiny_clip).eval()
    tokens = CLIPTokenizer.from_pretrained(TOKENIZER)(
        prompt, return_tensors="pt", truncation=True, max_length=16
    )
    score = ImageText(tiny_clip)
    cosines = []
    for seed in range(6):
        pixels = picture(seed, 32, 32)  # of the model's own size: nothing is resized
        levels = torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float()
        mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
        levels = (levels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        with torch.no_grad():
            seen = model.get_image_features(pixel_values=levels).pooler_output[0].numpy()
            read = model.get_text_features(**tokens).pooler_output[0].numpy()
        cosine = float(seen @ read / (np.linalg.norm(seen) * np.linalg.norm(read)))
        cosines.append(cosine)
        assert score.score(pixels, prompt) == pytest.approx(max(0, 100 * cosine), abs=1e-3)
        assert score.score(pixels, prompt) == score.score(pixels, prompt)
    assert any(cosines)
