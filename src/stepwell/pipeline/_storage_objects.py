"""Whatever fsspec speaks to as a storage: S3 and its like, memory, and many more."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import IO, Any, BinaryIO, cast

from stepwell.errors import MissingExtra
from stepwell.pipeline.storage import CHUNK, SPOOL, Storage, checked_prefix, checked_target


class ObjectStorage(Storage):
    """Files below a root that an fsspec file system knows.

    Args:
        files: the file system.
        root: its path of the root.
    """

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")
        self.url = str(files.unstrip_protocol(self._root))

    def _path(self, target: str) -> str:
        return f"{self._root}/{checked_target(target)}"

    def exists(self, target: str) -> bool:
        """Whether there is such a file."""
        return bool(self._files.isfile(self._path(target)))

    def delete(self, target: str) -> bool:
        """Remove the file."""
        if not self.exists(target):
            return False
        try:
            self._files.rm_file(self._path(target))
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        """All files below the folder ``prefix``, as targets, sorted."""
        prefix = checked_prefix(prefix)
        top = self._path(prefix) if prefix else self._root
        return sorted(path[len(self._root) + 1 :] for path in self._files.find(top))

    def get_url(self, target: str) -> str:
        """The file's address."""
        return str(self._files.unstrip_protocol(self._path(target)))

    def reader(self, target: str) -> BinaryIO:
        """The file, opened for reading."""
        return cast("BinaryIO", self._files.open(self._path(target), "rb"))

    def upload(self, source: str | os.PathLike[str], target: str) -> str:
        """Copy a local file to ``target``, which appears when it is complete. Returns its URL."""
        self._files.put_file(os.fspath(source), self._path(target))
        return self.get_url(target)

    def put(self, stream: IO[bytes], target: str) -> None:
        """Write the file. It is sent as a whole: a file system's own writer would keep what an error cut off."""
        head = stream.read(SPOOL)
        if len(head) < SPOOL:
            self._files.pipe_file(self._path(target), head)
            return
        with tempfile.NamedTemporaryFile() as spooled:
            spooled.write(head)
            shutil.copyfileobj(stream, spooled, CHUNK)
            spooled.flush()
            self._files.put_file(spooled.name, self._path(target))

    def claim(self, folder: str, marker: str, content: bytes) -> bool:
        """Make the folder with the file ``marker`` in it, unless it is there."""
        if self.list(folder):
            return False
        try:
            self._files.pipe_file(self._path(f"{folder}/{marker}"), content, mode="create")
        except FileExistsError:
            return False
        return True

    def delete_folder(self, folder: str) -> None:
        """Remove the folder with all that is in it, if it is there."""
        for target in self.list(folder):
            self.delete(target)

    def below(self, prefix: str) -> ObjectStorage:
        """The folder ``prefix`` as a storage of its own."""
        prefix = checked_prefix(prefix)
        return ObjectStorage(self._files, self._path(prefix) if prefix else self._root)


def open_url(url: str, options: dict[str, Any] | None = None) -> ObjectStorage:
    """The place that an fsspec URL names.

    Raises:
        MissingExtra: fsspec, or what it needs for this URL, is not installed.
    """
    try:
        from fsspec.core import url_to_fs

        settings: dict[str, Any] = {"use_listings_cache": False, **(options or {})}
        if url.startswith("memory:"):
            settings = {}
        files, root = url_to_fs(url, **settings)
    except ImportError as error:
        raise MissingExtra("objects", f"storage {url.split('?', 1)[0]!r}") from error
    return ObjectStorage(files, root)
