"""Which files are large files, and which are ignored: ``.gitattributes`` and ``.gitignore``.

Both files share git's pattern language, of which this is the part that repositories use: ``*``,
``?``, ``[...]``, ``**``, a leading or inner slash that anchors, a trailing slash for folders, and
in ``.gitignore`` a leading ``!``.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

# Above this, a file is large whatever its name.
LARGE = 10 * 1024 * 1024

_LFS = [
    "*.7z",
    "*.arrow",
    "*.bin",
    "*.bz2",
    "*.ckpt",
    "*.ftz",
    "*.gz",
    "*.h5",
    "*.joblib",
    "*.lfs.*",
    "*.mlmodel",
    "*.model",
    "*.msgpack",
    "*.npy",
    "*.npz",
    "*.onnx",
    "*.ot",
    "*.parquet",
    "*.pb",
    "*.pickle",
    "*.pkl",
    "*.pt",
    "*.pth",
    "*.rar",
    "*.safetensors",
    "saved_model/**/*",
    "*.tar.*",
    "*.tar",
    "*.tflite",
    "*.tgz",
    "*.wasm",
    "*.xz",
    "*.zip",
    "*.zst",
    "*tfevents*",
]

# What the Hub puts into every new model repository.
DEFAULT_GITATTRIBUTES = "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in _LFS)


def is_large(path: str, size: int, sample: bytes, attributes: str) -> bool:
    """Whether the Hub would want the file uploaded as a large file."""
    if size == 0:
        return False
    return size > LARGE or _is_binary(sample) or _has_lfs_filter(path, attributes)


def is_ignored(path: str, ignore_rules: str) -> bool:
    """Whether ``.gitignore`` excludes the file, or a folder above it."""
    segments = path.split("/")
    prefixes = ["/".join(segments[: n + 1]) for n in range(len(segments))]
    return any(_is_excluded(p, p != path, ignore_rules) for p in prefixes)


def _is_binary(sample: bytes) -> bool:
    try:
        # Not final: the sample may end in the middle of a character.
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True
    return b"\0" in sample


def _has_lfs_filter(path: str, attributes: str) -> bool:
    large = False
    for line in attributes.splitlines():
        pattern, *settings = line.split() or [""]
        if pattern and not pattern.startswith("#") and _regex(pattern).fullmatch(path):
            if "filter=lfs" in settings:
                large = True
            elif {"-filter", "!filter"} & set(settings):
                large = False
    return large


def _is_excluded(path: str, is_folder: bool, rules: str) -> bool:
    excluded = False
    for line in rules.splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        negated = rule.startswith("!")
        pattern = rule.removeprefix("!")
        if pattern.endswith("/") and not is_folder:
            continue
        if _regex(pattern.rstrip("/")).fullmatch(path):
            excluded = not negated
    return excluded


@lru_cache(maxsize=512)
def _regex(pattern: str) -> re.Pattern[str]:
    anchored = "/" in pattern
    rest = pattern.removeprefix("/")
    out = "" if anchored else "(?:.*/)?"
    while rest:
        if rest.startswith("**/"):
            out, rest = out + "(?:.*/)?", rest[3:]
        elif rest.startswith("**"):
            out, rest = out + ".*", rest[2:]
        elif rest[0] == "*":
            out, rest = out + "[^/]*", rest[1:]
        elif rest[0] == "?":
            out, rest = out + "[^/]", rest[1:]
        elif rest[0] == "[" and (found := re.match(r"\[([!^]?)([^]/]+)\]", rest)):
            body = found[2].replace("\\", "\\\\").replace("[", "\\[")
            out, rest = out + f"[{'^' if found[1] else ''}{body}]", rest[found.end() :]
        else:
            out, rest = out + re.escape(rest[0]), rest[1:]
    try:
        return re.compile(out, re.DOTALL)
    except re.error:
        return re.compile(r"(?!)")  # an impossible range matches nothing, as in git
