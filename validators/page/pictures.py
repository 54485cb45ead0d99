"""Pictures on their way into the page: each file once, as a data URI.

The pictures of a comparison share their sources, and equal files are equal pictures: the page
holds one copy, and refers to it by number.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from fluxconv.converters.errors import BadInput
from fluxconv.converters.progress import Progress

LOSSLESS_UP_TO = 256  # pixels: of larger pictures a page would weigh hundreds of megabytes
QUALITY = 90
MAP_UP_TO = 512  # pixels: a FLIP map is smooth, and its place is all it tells
_WORKERS = 2


class Pool:
    """The pictures of a page, numbered in the order in which they were first asked for."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._files: list[tuple[Path, int]] = []

    def __len__(self) -> int:
        return len(self._files)

    def number(self, file: Path, most: int = 0) -> int:
        """The number of the picture in `file`, whose longer side is scaled down to `most` pixels.

        Raises `BadInput` if the file cannot be read.
        """
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise BadInput(
                f"{file}: the picture cannot be read ({error.strerror}); run `fluxconv validate` "
                "again"
            ) from error
        if digest not in self._numbers:
            self._numbers[digest] = len(self._files)
            self._files.append((file, most))
        return self._numbers[digest]

    def encoded(self, progress: Progress) -> Iterator[tuple[int, str]]:
        """Number and data URI of every picture; raises `BadInput` for one that is garbled."""
        progress.start("Embedding pictures", len(self), "pictures")
        with ThreadPoolExecutor(_WORKERS) as workers:
            for number, uri in enumerate(workers.map(_data_uri, self._files)):
                yield number, uri
                progress.advance(1, self._files[number][0].name)
        progress.finish()


def is_lossless(width: int, height: int) -> bool:
    """Whether pictures of this size are embedded bit by bit."""
    return max(width, height) <= LOSSLESS_UP_TO


def _data_uri(wanted: tuple[Path, int]) -> str:
    file, most = wanted
    try:
        with Image.open(file) as image:
            picture = image.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise BadInput(f"{file}: is not a picture; run `fluxconv validate` again") from error
    if most and max(picture.size) > most:
        picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    if is_lossless(*picture.size):
        picture.save(stream, "WEBP", lossless=True, quality=60, exact=True)
    else:
        picture.save(stream, "WEBP", quality=QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
