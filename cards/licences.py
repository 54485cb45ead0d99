"""The licence a variant is passed on under: that of its source, text and attribution included."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from fluxconv.cards.escaping import one_line
from fluxconv.converters.errors import MissingLicence
from fluxconv.converters.variant import Variant

#: File names under which a checkpoint may bring its licence; the first is what fluxconv writes.
LICENCE_FILES = ("LICENSE.md", "LICENSE", "LICENSE.txt")
#: How a repository asks for consent, as the Hub's settings name it.
Gated = Literal["auto", "manual", False]
_HERE = Path(__file__).parent
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,63}")


@dataclass(frozen=True)
class Licence:
    """A licence as the card, the notice and the metadata need it.

    `file` is the variant's file with its text, None if it has none (yet); `shipped` the text that
    fluxconv brings, None if it brings none. `gated` says how the original asks for consent before a
    download, as the Hub's settings have it; `attribution` and `terms` belong into every NOTICE.
    """

    identifier: str
    name: str | None
    title: str
    link: str
    summary: str
    attribution: str | None
    terms: str | None
    gated: Gated
    file: str | None
    shipped: str | None

    @property
    def text_file(self) -> str | None:
        """The repository's file with its text, None if an address is enough."""
        return self.file or (LICENCE_FILES[0] if self.shipped else None)

    @property
    def metadata(self) -> dict[str, str]:
        """Its keys in a card's front matter."""
        if self.name is None:
            return {"license": self.identifier}
        named = {"license": "other", "license_name": self.name, "license_link": self.link}
        return {**named, "extra_gated_prompt": self._consent} if self.gated else named

    @property
    def _consent(self) -> str:
        """What the Hub shows to whoever asks for access, in the words of the original's."""
        title = self.title.replace("[", r"\[").replace("]", r"\]")
        return f'By clicking "Agree", you agree to the [{title}]({self.link}).'


@dataclass(frozen=True)
class _Row:
    license: str
    title: str
    link: str
    text: Literal["shipped", "source", "link"]
    summary: str
    name: str | None = None
    aliases: tuple[str, ...] = ()
    texts_at: tuple[str, ...] = ()
    gated: Gated = False
    attributions: tuple[str, ...] = ()
    terms: str | None = None


def licence_of(variant: Variant) -> Licence:
    """The licence of the variant, from its source's metadata and licence file.

    A licence that is not in `licences.yaml` is passed on too if its text came with the checkpoint
    or was put beside the variant. Raises `MissingLicence` saying what to add, and where.
    """
    source = variant.manifest.source
    return licence_in(variant.root, source.id, source.metadata)


def licence_in(folder: Path, source: str, stated: Mapping[str, Any]) -> Licence:
    """The licence of what lies in `folder`, the checkpoint `source` or made of it, whose README
    says `stated`; raises `MissingLicence` as `licence_of` does."""
    identifier, name = _stated(stated, "license"), _stated(stated, "license_name")
    source = one_line(source)
    if identifier is None:
        raise MissingLicence(
            f"{folder}: its source '{source}' states no licence; add `license: ...` (see "
            "https://huggingface.co/docs/hub/repositories-licenses) to the front matter of the "
            "source's README.md and quantize it again"
        )
    file = next((name for name in LICENCE_FILES if (folder / name).is_file()), None)
    row = _rows().get((identifier, name if identifier == "other" else None))
    if row is None:
        return _unknown(folder, identifier, name, file)
    if row.text == "source" and file is None:
        raise MissingLicence(
            f"{folder}: the {row.title} must travel with the weights; put its text, from where you "
            f"got the checkpoint or from {row.link}, into {folder}/LICENSE.md"
        )
    shipped = _shipped(row) if row.text == "shipped" else None
    return Licence(
        row.license,
        row.name,
        row.title,
        _link(row, source),
        row.summary,
        _attribution(row, folder / file if file else None),
        row.terms,
        row.gated,
        file,
        shipped,
    )


def _link(row: _Row, source: str) -> str:
    """Where the licence is read: at the source itself, if it is the licensor's."""
    if source in row.texts_at:
        return f"https://huggingface.co/{source}/blob/main/{LICENCE_FILES[0]}"
    return row.link


def _attribution(row: _Row, file: Path | None) -> str | None:
    """The sentence that the text at hand asks for; the newest edition's if it names none."""
    if not row.attributions:
        return None
    text = " ".join(file.read_text("utf-8", errors="replace").split()) if file else ""
    return next((each for each in row.attributions if each in text), row.attributions[0])


def _unknown(folder: Path, identifier: str, name: str | None, file: str | None) -> Licence:
    called = name if identifier == "other" and name is not None else identifier
    if identifier == "other" and name is None:
        raise MissingLicence(
            f"{folder}: its source says `license: other` and not which; add `license_name: "
            "...` to the front matter of the source's README.md and quantize it again"
        )
    if file is None:
        raise MissingLicence(
            f"{folder}: fluxconv does not know the licence '{called}' of its source, so its "
            f"text must travel with the weights: put it into {folder}/LICENSE.md"
        )
    # A name that the Hub has no identifier for; the link is our copy, which is always right.
    slug = re.sub(r"[^a-z0-9.+_-]+", "-", called.lower()).strip("-._+")[:64] or "custom"
    return Licence(
        "other",
        slug,
        called,
        file,
        "Read it before you use the weights or pass them on.",
        None,
        None,
        gated=False,
        file=file,
        shipped=None,
    )


def _stated(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not one_line(value):
        return None
    text = one_line(value)
    lowered = text.lower()
    return lowered if _IDENTIFIER.fullmatch(lowered) else text


def _shipped(row: _Row) -> str:
    return (_HERE / "templates" / f"LICENSE-{row.license}.md").read_text("utf-8")


@cache
def _rows() -> dict[tuple[str, str | None], _Row]:
    entries = yaml.safe_load((_HERE / "licences.yaml").read_text("utf-8"))
    rows = [_Row(**entry) for entry in entries]
    return {(row.license, name): row for row in rows for name in (row.name, *row.aliases)}
