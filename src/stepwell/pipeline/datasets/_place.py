"""A folder that appears at once, whole: filled under a sibling's name, then renamed.

For a target `set`, `.set.part` is being filled and `.set.old` is what an overwrite puts aside between its two renames.
Both names are fixed, so that what a kill leaves behind is found and put right by the next save, and nothing piles up.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwell.errors import BadArguments


@contextmanager
def filled(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give the folder to fill; on the way out it becomes `target`, on an exception it goes.

    Raises:
        BadArguments: the target is a file, or holds something and `overwrite` is false, or another process writes it.
    """
    target = Path(os.path.realpath(target))
    part, old = (target.with_name(f".{target.name}.{word}") for word in ("part", "old"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _held(part, target):
        try:
            _repair(target, old)
            check(target, overwrite=overwrite)
            for left in part.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield part
            # One call for all files: after a power loss no finished step may have a target of empty files, and fsync
            # would cost a commit of the file system for each of them.
            os.sync()
            _swap(part, target, old)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def check(target: Path, *, overwrite: bool) -> None:
    """Check that a target may be written.

    Raises:
        BadArguments: it may not.
    """
    if target.exists() and not target.is_dir():
        raise BadArguments(f"{target} is not a folder")
    if target.is_dir() and not overwrite and next(target.iterdir(), None) is not None:
        raise BadArguments(f"{target} is not empty; overwrite=True replaces it")


@contextmanager
def _held(part: Path, target: Path) -> Iterator[None]:
    """Make `part` and lock it; the system unlocks it when a process dies."""
    while True:
        try:
            part.mkdir(exist_ok=True)
            # What is in it goes: it must be a folder of its own and no link to another.
            handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # another process has just renamed it
        except (FileExistsError, NotADirectoryError) as error:
            raise BadArguments(f"{part} is in the way: {target} is filled there first", hint="remove it") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadArguments(f"another process is writing {target}") from error
            if not _is_still(part, handle):
                continue  # locked what is already the other's target
            yield
            return
        finally:
            os.close(handle)


def _is_still(part: Path, handle: int) -> bool:
    try:
        return os.path.samestat(part.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _repair(target: Path, old: Path) -> None:
    """Finish what a kill between or after the two renames of `_swap` has left."""
    if old.exists() and not target.exists():
        old.rename(target)
    elif old.exists():
        shutil.rmtree(old)


def _swap(part: Path, target: Path, old: Path) -> None:
    if target.exists() and next(target.iterdir(), None) is not None:
        target.rename(old)
        try:
            part.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old)
    else:
        part.rename(target)
