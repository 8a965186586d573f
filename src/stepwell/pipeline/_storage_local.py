"""A local folder as a storage."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from stepwell.errors import BadArguments
from stepwell.pipeline.storage import Storage, checked_prefix, checked_target, part_of, sync_folder, write_whole


class LocalStorage(Storage):
    """Files below a local folder. What leads out of it through a symbolic link is refused.

    Args:
        root: the folder; made when the first file is written.
        token: marks names of files that are being written.
    """

    def __init__(self, root: str | os.PathLike[str], token: str = "") -> None:
        self.root = Path(os.path.realpath(Path(root).expanduser()))
        self.url = str(self.root)
        self._token = token

    def path(self, target: str) -> Path:
        """The checked target's place.

        Raises:
            BadArguments: it leaves the folder.
        """
        path = self.root / checked_target(target)
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self.root):
            message = f"target {target!r} leaves the storage"
            raise BadArguments(message)
        return path

    def exists(self, target: str) -> bool:
        """Whether there is such a file."""
        return self.path(target).is_file()

    def delete(self, target: str) -> bool:
        """Remove the file, and what a killed process left of it."""
        path = self.path(target)
        if self._token:
            part_of(path, self._token).unlink(missing_ok=True)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        sync_folder(path.parent)
        return True

    def list(self, prefix: str = "") -> list[str]:
        """All files below the folder ``prefix``, as targets, sorted."""
        prefix = checked_prefix(prefix)
        top = self.path(prefix) if prefix else self.root
        found = []
        for folder, _, names in os.walk(top):
            found += [(Path(folder) / name).relative_to(self.root).as_posix() for name in names]
        return sorted(found)

    def get_url(self, target: str) -> str:
        """The file's path."""
        return str(self.path(target))

    def reader(self, target: str) -> BinaryIO:
        """The file, opened for reading."""
        return self.path(target).open("rb")

    def put(self, stream: IO[bytes], target: str) -> None:
        """Write it under another name, flush, rename."""
        write_whole(self.path(target), stream, self._token)

    def below(self, prefix: str) -> LocalStorage:
        """The folder ``prefix`` as a storage of its own."""
        prefix = checked_prefix(prefix)
        return LocalStorage(self.path(prefix) if prefix else self.root, self._token)

    def claim(self, folder: str, marker: str, content: bytes) -> bool:
        """Make the folder with the file ``marker`` in it, unless it is there."""
        path = self.path(folder)
        if path.exists():
            return False
        # Filled first, then renamed: a folder without a marker would be nobody's after a kill.
        part = part_of(path, self._token)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_whole(part / marker, io.BytesIO(content))
        try:
            part.rename(path)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                return False
            raise
        sync_folder(path.parent)
        return True

    def delete_folder(self, folder: str) -> None:
        """Remove the folder with all that is in it, if it is there."""
        path = self.path(folder)
        shutil.rmtree(part_of(path, self._token), ignore_errors=True)
        if path.exists():
            shutil.rmtree(path)

    def absent_folders(self, targets: Iterable[str]) -> Sequence[str]:
        """Folders that writing these targets would make, outermost first."""
        absent = set() if self.root.exists() else {""}
        for target in targets:
            folder = self.path(target).parent
            while folder != self.root and not folder.exists():
                absent.add(folder.relative_to(self.root).as_posix())
                folder = folder.parent
        return sorted(absent)

    def remove_folders(self, folders: Iterable[str]) -> None:
        """Remove those of these folders that are empty, innermost first."""
        for folder in sorted(folders, reverse=True):
            try:
                (self.path(folder) if folder else self.root).rmdir()
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    raise
