"""A report is made beside the old one and takes its place only when it is complete.

`report.json` goes first and comes last: whoever kills the process at any point finds the old
report, no report, or the new one, never half of one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxconv.converters.errors import BadInput
from fluxconv.converters.staging import locked, sync, sync_tree
from fluxconv.validators.report import IMAGES, REPORT_NAME

_PARTIAL = ".report.partial"
_OLD_IMAGES = ".report.old-images"


@contextmanager
def staged_report(root: Path) -> Iterator[Path]:
    """A hidden folder in the variant `root` for a report and its images, put in place at the end.

    If the block fails, the old report stays. Raises `BadInput` if the variant cannot be written or
    another run is validating it.
    """
    try:
        busy = f"{root}: another run is validating it; wait for it to end"
        with locked(root / _PARTIAL, busy) as partial:
            (partial / IMAGES).mkdir()
            yield partial
            sync_tree(partial)
            _put_in_place(partial, root)
    except OSError as error:
        raise BadInput(f"{root}: the report cannot be written: {error.strerror}") from error


def _put_in_place(partial: Path, root: Path) -> None:
    shutil.rmtree(root / _OLD_IMAGES, ignore_errors=True)
    (root / REPORT_NAME).unlink(missing_ok=True)
    if (root / IMAGES).exists():
        (root / IMAGES).rename(root / _OLD_IMAGES)
    if any((partial / IMAGES).iterdir()):
        (partial / IMAGES).rename(root / IMAGES)
    sync(root)
    (partial / REPORT_NAME).rename(root / REPORT_NAME)
    sync(root)
    shutil.rmtree(root / _OLD_IMAGES, ignore_errors=True)
