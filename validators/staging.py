"""A report is made beside the old one and takes its place only when it is complete.

`report.json` goes first and comes last: whoever kills the process at any point finds the old
report, no report, or the new one, never half of one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxconv.converters.errors import BadInput
from fluxconv.validators.report import IMAGES, REPORT_NAME

_PARTIAL = ".report.partial"
_OLD_IMAGES = ".report.old-images"


@contextmanager
def staged_report(root: Path) -> Iterator[Path]:
    """A hidden folder in the variant `root` for a report and its images, put in place at the end.

    If the block fails, the old report stays. Raises `BadInput` if the variant cannot be written or
    another run is validating it.
    """
    partial = root / _PARTIAL
    try:
        partial.mkdir(exist_ok=True)
        handle = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise BadInput(f"{root}: the report cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{root}: another run is validating it") from None
        _empty(partial)  # what a killed run left
        (partial / IMAGES).mkdir()
        try:
            yield partial
            _sync_tree(partial)
            _put_in_place(partial, root)
        except OSError as error:
            raise BadInput(f"{root}: the report cannot be written: {error.strerror}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(handle)


def _put_in_place(partial: Path, root: Path) -> None:
    shutil.rmtree(root / _OLD_IMAGES, ignore_errors=True)
    (root / REPORT_NAME).unlink(missing_ok=True)
    if (root / IMAGES).exists():
        (root / IMAGES).rename(root / _OLD_IMAGES)
    if any((partial / IMAGES).iterdir()):
        (partial / IMAGES).rename(root / IMAGES)
    _sync(root)
    (partial / REPORT_NAME).rename(root / REPORT_NAME)
    _sync(root)
    shutil.rmtree(root / _OLD_IMAGES, ignore_errors=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync_tree(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
