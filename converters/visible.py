"""Text that came with somebody's file, made fit to stand in one line of a message."""

from __future__ import annotations

_LONGEST_PATH = 4096  # characters; systems have no longer ones


def visible(text: object, longest: int = 80) -> str:
    """`text` on one line of at most `longest` characters, with the middle left out of a longer one.

    Names of tensors tell themselves apart by their ends, so both ends stay. Terminal codes, line
    breaks, marks that turn the writing direction and lone surrogates become `\\x1b` and the like.
    """
    found = _ends(str(text), longest)
    if found.isprintable():
        return found
    return _ends("".join(c if c.isprintable() else ascii(c)[1:-1] for c in found), longest)


def visible_path(path: object) -> str:
    """The same for a path, which is never shortened: the user has to find the file."""
    return visible(path, _LONGEST_PATH)


def _ends(text: str, longest: int) -> str:
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
