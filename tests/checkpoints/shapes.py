"""The world that the tiny Flux draws: coloured shapes on coloured backgrounds.

Everything about that world stands here: the palette, the captions, the rendering, which
combinations training never sees, and the judge that says whether a picture shows its
caption. Only numpy and Pillow are needed, so tests can use it without loading torch.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
"""Pictures are square, this many pixels wide."""

# Near the corners of the RGB cube: no two are close, so "which colour is this" has one answer.
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "green": (30, 165, 60),
    "blue": (40, 60, 220),
    "yellow": (245, 220, 40),
    "cyan": (50, 210, 225),
    "pink": (240, 90, 200),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")
POSITIONS: dict[str, tuple[float, float]] = {
    "left": (18.0, 32.0),
    "right": (46.0, 32.0),
    "top": (32.0, 18.0),
    "bottom": (32.0, 46.0),
    "center": (32.0, 32.0),
}
RADII = {"small": 10.0, "": 12.5, "large": 15.0}
"""Size word to radius; a caption without a size word means the middle one."""

TEMPLATES = (
    "a {thing} on a {background} background {place}",
    "a {thing} {place} on a {background} background",
    "a {background} background with a {thing} {place}",
    "{place}, a {thing} on {background}",
    "a picture of a {thing} {place}, {background} background",
    "a {background} picture with one {thing} {place}",
    "{thing}, {place}, {background} background",
)
JITTER = 1.5
"""Training pictures move by up to this many pixels, so that a seed has something to decide."""

HELD_OUT_PERCENT = 10
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Scene:
    """What one picture shows."""

    shape: str
    colour: str
    background: str
    position: str
    size: str = ""

    @property
    def held_out(self) -> bool:
        """Whether training must never see this combination (its size and wording aside)."""
        key = f"{self.shape}/{self.colour}/{self.background}/{self.position}"
        digest = hashlib.sha256(key.encode()).digest()
        return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT

    def caption(self, template: int = 0) -> str:
        """Say the scene in words; ``template`` picks one of ``TEMPLATES``."""
        place = "in the center" if self.position == "center" else f"at the {self.position}"
        thing = f"{self.size} {self.colour} {self.shape}".strip()
        return TEMPLATES[template].format(thing=thing, background=self.background, place=place)


def scenes(*, held_out: bool | None = None) -> Iterator[Scene]:
    """Every scene in a fixed order, or only the held-out ones, or only those for training."""
    for shape, colour, background, position, size in itertools.product(
        SHAPES, PALETTE, PALETTE, POSITIONS, RADII
    ):
        scene = Scene(shape, colour, background, position, size)
        if colour != background and held_out in (None, scene.held_out):
            yield scene


def held_out_sample(count: int, seed: int = 0) -> list[tuple[Scene, str]]:
    """``count`` different held-out scenes, spread evenly over shapes, each with a caption."""
    rng = random.Random(seed)
    pools = {shape: [s for s in scenes(held_out=True) if s.shape == shape] for shape in SHAPES}
    for pool in pools.values():
        rng.shuffle(pool)
    turns = itertools.cycle(SHAPES)
    picked = [pools[next(turns)].pop() for _ in range(count)]
    return [(scene, scene.caption(rng.randrange(len(TEMPLATES)))) for scene in picked]


def _outline(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """The corners of a shape; radii are scaled so that all shapes cover a similar area."""

    def ring(corners: int, first: float, *radii: float) -> list[tuple[float, float]]:
        return [
            (
                x + radii[i % len(radii)] * math.cos(first + 2 * math.pi * i / corners),
                y + radii[i % len(radii)] * math.sin(first + 2 * math.pi * i / corners),
            )
            for i in range(corners)
        ]

    up = -math.pi / 2
    match shape:
        case "circle":
            return ring(48, up, radius)
        case "square":
            return ring(4, up / 2, radius * 1.2)
        case "triangle":
            return [(px, py + radius * 0.2) for px, py in ring(3, up, radius * 1.2)]
        case "diamond":
            return [(x, y - radius * 1.15), (x + radius * 0.75, y), (x, y + radius * 1.15),
                    (x - radius * 0.75, y)]  # fmt: skip
        case "cross":
            arm, long = radius * 0.36, radius * 1.1
            return [(x + px, y + py) for px, py in (
                (-arm, -long), (arm, -long), (arm, -arm), (long, -arm), (long, arm), (arm, arm),
                (arm, long), (-arm, long), (-arm, arm), (-long, arm), (-long, -arm), (-arm, -arm),
            )]  # fmt: skip
        case "star":
            return ring(10, up, radius * 1.15, radius * 0.52)
    raise ValueError(f"no such shape: {shape}")


def coverage(scene: Scene, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """How much of each pixel the shape covers, from 0 to 1, with smooth edges."""
    x, y = POSITIONS[scene.position]
    large = Image.new("L", (SIZE * _OVERSAMPLING,) * 2, 0)
    outline = _outline(scene.shape, x + dx, y + dy, RADII[scene.size])
    ImageDraw.Draw(large).polygon(
        [(px * _OVERSAMPLING, py * _OVERSAMPLING) for px, py in outline], fill=255
    )
    return np.asarray(large.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32) / 255


def render(scene: Scene, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """Draw a scene: float32 of (SIZE, SIZE, 3), from 0 to 1."""
    alpha = coverage(scene, dx, dy)[..., None]
    ink = np.array(PALETTE[scene.colour], dtype=np.float32) / 255
    ground = np.array(PALETTE[scene.background], dtype=np.float32) / 255
    return alpha * ink + (1 - alpha) * ground


def nearest_colours(pixels: np.ndarray) -> np.ndarray:
    """The index in ``PALETTE`` of the colour nearest to each pixel (last axis RGB, 0 to 1)."""
    palette = np.array(list(PALETTE.values()), dtype=np.float32) / 255
    distance = ((pixels[..., None, :] - palette) ** 2).sum(axis=-1)
    return distance.argmin(axis=-1)


def _most_common(indices: np.ndarray) -> str:
    return list(PALETTE)[int(np.bincount(indices.ravel(), minlength=len(PALETTE)).argmax())]


@dataclass(frozen=True)
class Verdict:
    """What the judge saw in a picture, beside what the caption asked for."""

    scene: Scene
    colour: str
    background: str
    shape: str

    @property
    def colours_right(self) -> bool:
        """Shape colour and background colour are both what the caption says."""
        return (self.colour, self.background) == (self.scene.colour, self.scene.background)

    @property
    def shape_right(self) -> bool:
        """The silhouette is nearest to that of the shape in the caption."""
        return self.shape == self.scene.shape


def judge(image: Image.Image | np.ndarray, scene: Scene) -> Verdict:
    """Read colours and shape back from a picture.

    The shape's colour is the most common palette colour where the shape covers its pixels for
    any permitted jitter; the background's is that of the four 6 x 6 corners. The shape is the
    one whose silhouette, over all permitted jitters, overlaps best with the non-background.
    """
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels / 255 if pixels.max() > 1.5 else pixels
    nearest = nearest_colours(pixels)
    shifts = list(itertools.product((-JITTER, 0.0, JITTER), repeat=2))
    core = np.min([coverage(scene, dx, dy) for dx, dy in shifts], axis=0) > 0.99
    corners = np.concatenate(
        [nearest[rows, columns].ravel() for rows in (slice(6), slice(-6, None))
         for columns in (slice(6), slice(-6, None))]
    )  # fmt: skip
    background = _most_common(corners)
    silhouette = nearest != list(PALETTE).index(background)
    scores = {}
    for shape in SHAPES:
        other = Scene(shape, scene.colour, scene.background, scene.position, scene.size)
        masks = [coverage(other, dx, dy) > 0.5 for dx, dy in shifts]
        scores[shape] = max((m & silhouette).sum() / (m | silhouette).sum() for m in masks)
    shape = max(scores, key=scores.__getitem__)
    return Verdict(scene, _most_common(nearest[core]), background, shape)
