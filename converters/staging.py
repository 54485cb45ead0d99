"""Folders that are made in a hidden place beside their own and put there when they are complete."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fluxconv.converters.errors import BadInput, FluxconvError, OutputExists
from fluxconv.converters.manifest import MANIFEST_NAME

_PATIENCE = 10.0  # seconds: others have the folder to themselves for a moment, to look at it
_PAUSE = 0.05


@contextmanager
def staged(
    place: Path, *, overwrite: bool | None = None, resumable: bool = False
) -> Iterator[Path]:
    """A temporary folder beside `place`, renamed into it when the block ends well.

    If the block fails, `place` is as it was and the folder is removed, unless it is `resumable`:
    then it stays after a failure that the same command can get over (see `goes_on_after`), with
    all that it holds. What an earlier, killed run left there is replaced, or handed on if
    `resumable`. Raises `OutputExists` if `place` exists (unless `overwrite`, and then
    only a variant is replaced; None if the user has no such choice) or if another run is writing
    it, `BadInput` if it cannot be written.
    """
    restore(place)
    check_free(place, overwrite=overwrite)
    busy = f"{place}: another run is writing it"
    with locked(hidden(place, "partial"), busy, resumable=resumable) as partial:
        yield partial
        sync_tree(partial)
        check_free(place, overwrite=overwrite)
        old = hidden(place, "old")
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        partial.rename(place)
        sync(place.parent)
        shutil.rmtree(old, ignore_errors=True)


def restore(place: Path) -> None:
    """Put back what a killed run had taken away to make room for its own."""
    old = hidden(place, "old")
    if old.exists() and not place.exists():
        old.rename(place)


def check_free(place: Path, *, overwrite: bool | None = None) -> None:
    """Raise `OutputExists` if writing `place` would destroy something."""
    if not (place.exists() or place.is_symlink()):
        return
    if not overwrite:
        more = "" if overwrite is None else ", or give --overwrite"
        raise OutputExists(f"{place}: exists; remove it, or choose another folder{more}")
    if not (place / MANIFEST_NAME).is_file():
        raise OutputExists(f"{place}: is not a variant, so --overwrite leaves it alone; remove it")


def hidden(place: Path, what: str) -> Path:
    """The path beside `place` where `what` of it is kept while it is made."""
    return place.parent / f".{place.name}.{what}"


def goes_on_after(error: BaseException) -> bool:
    """Whether the same command, given again, can go on after `error`: a kill, Ctrl-C, a full disk,
    a crash; but not bad input, which would only fail again."""
    return not isinstance(error, FluxconvError) or error.resumable


@contextmanager
def locked(folder: Path, busy: str, *, resumable: bool = False) -> Iterator[Path]:
    """The hidden folder `folder`, made or emptied, for one run alone; gone at the end of the block
    unless it was renamed away. If `resumable`, it is not emptied, and stays as `staged` says.

    Raises `OutputExists` with the sentence `busy` if another run has it, `BadInput` if it cannot be
    made.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    hold = _Hold(folder)
    try:
        if not hold.take(fcntl.LOCK_EX):
            raise OutputExists(busy)
        if not resumable:
            empty(folder)  # what a killed run left
        try:
            yield folder
        except BaseException as error:
            if not (resumable and goes_on_after(error)):
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # what was made for it alone; not if something is in it
                    for parent in missing:
                        parent.rmdir()
            raise
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        hold.close()


@contextmanager
def joined(folder: Path, busy: str, fits: Callable[[bool], bool]) -> Iterator[Path]:
    """The hidden folder `folder`, made if need be, for one of several runs that fill it together;
    it stays, whatever becomes of the block, until a run has it alone with `locked`.

    `fits` says whether what lies in it is of use, and hears whether this run is alone there. If it
    is not, it is removed by a run that is alone; the others raise `OutputExists` with the sentence
    `busy`, as they do if a run has the folder for itself.
    """
    hold = _Hold(folder)
    try:
        patience = time.monotonic() + _PATIENCE
        while not (alone := hold.take(fcntl.LOCK_EX)):
            if hold.take(fcntl.LOCK_SH):
                break
            if time.monotonic() > patience:  # no run that only looks around: it is at work
                raise OutputExists(busy)
            time.sleep(_PAUSE)
        if not fits(alone):
            if not alone:
                raise OutputExists(busy)
            empty(folder)
        while not hold.take(fcntl.LOCK_SH):
            if time.monotonic() > patience:
                raise OutputExists(busy)
            time.sleep(_PAUSE)
        yield folder
    finally:
        hold.close()


class _Hold:
    """A folder, made if need be, that several runs may want; raises `BadInput` if it cannot be.

    It is locked itself, so that nothing is left of the lock. On NFS only a file that is open for
    writing can be locked for one run alone: there one beside the folder stands in for it, and
    stays.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = self._locked = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise BadInput(f"{folder.parent}: cannot be written: {error.strerror}") from error

    def take(self, how: int) -> bool:
        """Whether the lock could be had, and the folder is still where it was."""
        try:
            self._lock(how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise BadInput(
                f"{self._folder.parent}: its filesystem has no locks ({error.strerror}); choose "
                "another"
            ) from error
        # Not if the run that held the lock has just renamed it.
        folder = self._folder
        return folder.exists() and os.path.samestat(os.fstat(self._handle), folder.stat())

    def close(self) -> None:
        """Let go of it."""
        for handle in {self._handle, self._locked}:
            os.close(handle)

    def _lock(self, how: int) -> None:
        try:
            fcntl.flock(self._locked, how)
        except OSError as error:
            if error.errno != errno.EBADF or self._locked != self._handle:
                raise
            self._locked = os.open(f"{self._folder}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._locked, how)


def sync_tree(folder: Path) -> None:
    """Have the disk hold everything in `folder` for good."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            sync(path)


def sync(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of names, for good."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def empty(folder: Path, *, but: str = "") -> None:
    """Remove everything in `folder`, except the file `but`."""
    for path in folder.iterdir():
        if path.name == but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
