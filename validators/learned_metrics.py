"""Scores that need trained weights: LPIPS, and how well a picture fits its prompt.

They are offered only where the weights lie in the local cache already. Nothing here goes to the
network, and a file whose hash is not the pinned one is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.variant import hash_file

if TYPE_CHECKING:
    import torch

    from fluxconv.validators.similarity import Pixels


@dataclass(frozen=True)
class Weights:
    """A file of weights: its name, its sha256, and the shell command that fetches it."""

    name: str
    sha256: str
    fetch: str

    def refusal(self, file: Path | None) -> str | None:
        """Why `file` cannot be used; None if it is these weights."""
        if file is None or not file.is_file():
            return f"{self.name} is not in the local cache; to fetch it run: {self.fetch}"
        if _sha256(file, file.stat().st_mtime_ns) != self.sha256:
            return f"{file} has another hash than it should; remove it and run: {self.fetch}"
        return None


ALEXNET = Weights(
    "alexnet-owt-7be5be79.pth",
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    'python -c "import torch; torch.hub.load_state_dict_from_url('
    "'https://download.pytorch.org/models/alexnet-owt-7be5be79.pth', check_hash=True)\"",
)
# LPIPS 0.1's own; torchmetrics carries the same file as the lpips package.
LPIPS_LINEAR = Weights(
    "alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "pip install --force-reinstall torchmetrics",
)
CLIP_REPOSITORY = "openai/clip-vit-large-patch14"
CLIP_REVISION = "32bd64288804d66eefd0ccbe215aa642df71cc41"
_CLIP_SETTINGS = ("config.json", "preprocessor_config.json", "tokenizer.json")
CLIP = Weights(
    "model.safetensors",
    "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    f"hf download {CLIP_REPOSITORY} --revision {CLIP_REVISION} "
    f"--include model.safetensors '*.json' merges.txt",
)

#: Pixels across: in a smaller picture nothing is left for AlexNet after its second pooling.
LPIPS_SMALLEST = 31

# torchvision's `alexnet().features`: the convolutions as index, channels in and out, size, stride
# and padding. After each comes a ReLU, whose output LPIPS compares; before the second and the
# third, the maxima of 3 x 3 pixels.
_CONVOLUTIONS = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
_POOLED = (3, 6)
# LPIPS' own shift and scale of each colour, for levels from -1 to 1.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips:
    """LPIPS 0.1 with AlexNet (Zhang et al. 2018), from AlexNet's and LPIPS' own state dicts.

    Both files are opened as plain tensors, which runs no code in them.
    """

    def __init__(self, alexnet: Path, linear: Path) -> None:
        import torch

        state = torch.load(alexnet, map_location="cpu", weights_only=True)
        self._filters = [
            (state[f"features.{row[0]}.weight"], state[f"features.{row[0]}.bias"])
            for row in _CONVOLUTIONS
        ]
        state = torch.load(linear, map_location="cpu", weights_only=True)
        self._linear = [state[f"lin{index}.model.1.weight"] for index in range(len(_CONVOLUTIONS))]

    def distance(self, source: Pixels, variant: Pixels) -> float:
        """0 for equal pictures; symmetric. For pictures of 31 pixels across, or more."""
        import torch

        total = 0.0
        with torch.inference_mode():
            for first, second, weights in zip(
                self._features(source), self._features(variant), self._linear, strict=True
            ):
                squares = (_unit(first) - _unit(second)) ** 2
                total += float((squares * weights).sum(1).mean())
        return total

    def _features(self, pixels: Pixels) -> list[torch.Tensor]:
        import torch
        import torch.nn.functional as F

        levels = torch.from_numpy(pixels.astype("float32") / 127.5 - 1).permute(2, 0, 1)[None]
        shift, scale = (torch.tensor(each).view(1, 3, 1, 1) for each in (_SHIFT, _SCALE))
        found, x = [], (levels - shift) / scale
        for (index, *_, stride, padding), (weight, bias) in zip(
            _CONVOLUTIONS, self._filters, strict=True
        ):
            if index in _POOLED:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x)
        return found


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Each place's features at length 1; LPIPS' own guard against a length of 0."""
    import torch

    lengths: torch.Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (lengths + 1e-10)


class ImageText:
    """CLIP's view of a picture and its prompt, from a folder in the layout of transformers."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self._processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        self._model = CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        ).eval()

    def score(self, pixels: Pixels, prompt: str) -> float:
        """CLIPScore (Hessel et al. 2021) as torchmetrics scales it: 100 times the cosine, at least
        0. Of a long prompt CLIP reads the beginning."""
        import torch
        from PIL import Image

        inputs = self._processor(
            text=[prompt],
            images=[Image.fromarray(pixels)],
            return_tensors="pt",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
        )
        with torch.inference_mode():
            answer = self._model(**inputs)
        cosine = torch.nn.functional.cosine_similarity(answer.image_embeds, answer.text_embeds)
        return max(0.0, 100 * float(cosine))


def lpips_missing() -> str | None:
    """Why there is no LPIPS here, and what to run; None if there is."""
    alexnet, linear = _lpips_files()
    return ALEXNET.refusal(alexnet) or LPIPS_LINEAR.refusal(linear)


def image_text_missing() -> str | None:
    """Why there is no image-text score here, and what to run; None if there is."""
    files = [_cached_clip(name) for name in _CLIP_SETTINGS]
    weights = _cached_clip(CLIP.name)
    return CLIP.refusal(None if None in files else weights)


def lpips(source: Pixels, variant: Pixels, prompt: str) -> float:
    """LPIPS, from the weights in torch's cache; only where `lpips_missing` is None."""
    return _open_lpips(*_lpips_files()).distance(source, variant)


def image_text(source: Pixels, variant: Pixels, prompt: str) -> float:
    """How well the variant's picture fits the prompt; only where `image_text_missing` is None."""
    weights = _cached_clip(CLIP.name)
    assert weights
    return _open_clip(weights.parent).score(variant, prompt)


_open_lpips = cache(Lpips)
_open_clip = cache(ImageText)


@cache
def _sha256(file: Path, changed: int) -> str:
    """Gigabytes are hashed once a process, and again if the file `changed`."""
    return hash_file(file).sha256


def _lpips_files() -> tuple[Path, Path]:
    import torch

    spec = find_spec("torchmetrics")
    assert spec and spec.origin
    linear = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / LPIPS_LINEAR.name
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET.name, linear


def _cached_clip(name: str) -> Path | None:
    """A file of CLIP in the Hub's local cache, at the pinned revision."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(CLIP_REPOSITORY, name, revision=CLIP_REVISION)
    return Path(found) if isinstance(found, str) else None
