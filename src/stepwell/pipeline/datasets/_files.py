"""The files of a dataset: found below a folder, and read as text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets._checks import UNFIT, malformed, told

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
IGNORED = frozenset({"Thumbs.db", "desktop.ini", "__pycache__", "@eaDir"})
"""What operating systems leave in folders; names that begin with a dot are left out as well."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is no part of a dataset."""
    return name.startswith(".") or name in IGNORED


def is_image(name: str) -> bool:
    """Whether the extension is one of an image."""
    return name.lower().endswith(EXTENSIONS)


def found(folder: Path) -> Iterator[tuple[str, Path, bool]]:
    """What lies below `folder`, by its name in it, sorted; what the system left there is left out.

    The third value is false for what cannot be read as a file: links that lead nowhere or to a folder (which could
    lead round in a circle), pipes and the like.

    Raises:
        BadArguments: there is no such folder, or a name has control characters.
    """
    if not folder.is_dir():
        raise BadArguments(f"no folder {folder.name!r} in {folder.parent}", hint="is the format of the dataset right?")
    for name, is_file in sorted(_below(folder, "")):
        if UNFIT.search(name):
            raise BadArguments(
                f"control characters in the name of a file in {folder}: {told(name)}", hint="rename the file"
            )
        yield name, folder / name, is_file


def _below(folder: Path, front: str) -> Iterator[tuple[str, bool]]:
    folders = [front]
    while folders:
        front = folders.pop()
        with os.scandir(folder / front) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{front}{entry.name}/")
                else:
                    yield f"{front}{entry.name}", entry.is_file()


def read_text(path: Path) -> str:
    """A text file in UTF-8.

    Raises:
        BadArguments: it is not UTF-8; the line is named.
    """
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(path, raw.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
