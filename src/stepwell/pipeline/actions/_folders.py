"""Local folders that appear at once, whole, and give way to what was there when the run is rolled back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stepwell.errors import BadArguments
from stepwell.pipeline.storage import sync_folder

R = TypeVar("R")


def refuse_filled(target: Path, *, overwrite: bool) -> None:
    """Raise `BadArguments` when the folder may not be written to: something is in it.

    Args:
        target: the folder.
        overwrite: whether it may be replaced.
    """
    if target.exists() and not target.is_dir():
        message = f"{target} is not a folder"
        raise BadArguments(message)
    if not overwrite and target.is_dir() and any(target.iterdir()):
        message = f"{target} is not empty; overwrite=True replaces it"
        raise BadArguments(message)


def aside_of(target: Path, token: str) -> Path:
    """Where a folder waits that this run replaces."""
    return target.with_name(f".{target.name}.{token}.former")


def absent_parents(target: Path) -> list[str]:
    """The folders above it that are not there, innermost first."""
    absent = []
    folder = target.parent
    while not folder.exists():
        absent.append(str(folder))
        folder = folder.parent
    return absent


@dataclass(frozen=True)
class Filling:
    """A folder that a run makes.

    Args:
        target: the folder that appears.
        token: of the run.
        existed: whether something was there before; it waits aside then.
        parents: folders above it that were not there, innermost first.
    """

    target: str
    token: str
    existed: bool
    parents: list[str]

    @classmethod
    def begun(cls, target: Path, token: str, *, overwrite: bool) -> Filling:
        """Look at what is there. Raises `BadArguments` as `refuse_filled`."""
        refuse_filled(target, overwrite=overwrite)
        return cls(str(target), token, target.exists(), absent_parents(target))

    def fill(self, write: Callable[[Path], R]) -> R:
        """Fill a temporary sibling with ``write``, then rename it. May be called again after a kill."""
        target, part = Path(self.target), self._part()
        self._remove_part()
        part.mkdir(parents=True)
        try:
            value = write(part)
            # One call for all files: fsync would cost a commit of the file system for each of them.
            os.sync()
            aside = aside_of(target, self.token)
            if self.existed and not aside.exists():
                target.rename(aside)
            else:
                shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
            sync_folder(target.parent)
        except BaseException:
            self._remove_part()
            raise
        return value

    def take_back(self) -> None:
        """Delete what the run made and put back what was there. May be called again."""
        target = Path(self.target)
        self._remove_part()
        aside = aside_of(target, self.token)
        if target.exists() and (aside.exists() or not self.existed):
            shutil.rmtree(target)
        if aside.exists():
            aside.rename(target)
        for parent in self.parents:
            try:
                Path(parent).rmdir()
            except OSError:
                return

    def settle(self) -> None:
        """The run has succeeded: what it replaced goes."""
        shutil.rmtree(aside_of(Path(self.target), self.token), ignore_errors=True)

    def _part(self) -> Path:
        target = Path(self.target)
        return target.with_name(f".{target.name}.{self.token}.part")

    def _remove_part(self) -> None:
        part = self._part()
        # A conversion fills a sibling of its own, which a kill may have left.
        for folder in (part, part.with_name(f".{part.name}.part"), part.with_name(f".{part.name}.old")):
            shutil.rmtree(folder, ignore_errors=True)
