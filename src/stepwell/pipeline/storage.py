"""`open_storage` and `Storage`: the places that actions read from and write to.

A storage is a tree of files below a root: a local folder, or anything that fsspec speaks to. Its files are named by
their path below the root, with ``/``. A name that would leave the root is refused before anything is read or written.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, BinaryIO, cast

from stepwell.errors import BadArguments

CHUNK = 1 << 20
"""Bytes read at a time."""
SPOOL = 8 << 20
"""Bytes of a file being written that are kept in memory."""


class Storage(ABC):
    """A tree of files below a root. Made by `open_storage`; its methods may be called by several threads.

    `url` is the root's address. A target is a path below the root, relative, with ``/``; one that is absolute, empty
    or leaves the root raises `BadArguments`. What is not there raises `FileNotFoundError`; other trouble is an
    `OSError` or what the storage's client raises.
    """

    url: str

    def upload(self, source: str | os.PathLike[str], target: str) -> str:
        """Copy a local file to ``target``, which appears whole or not at all. Returns its URL."""
        with Path(source).open("rb") as stream:
            self.put(stream, checked_target(target))
        return self.get_url(target)

    def download(self, target: str, destination: str | os.PathLike[str]) -> Path:
        """Copy ``target`` to a local file, which appears whole or not at all. Returns its path."""
        destination = Path(destination)
        with self.open(target) as stream:
            write_whole(destination, stream)
        return destination

    def open(self, target: str, mode: str = "rb") -> BinaryIO:
        """Open a file.

        Args:
            target: the file.
            mode: ``rb``, or ``wb``: what is written appears when the file is closed, not if its ``with`` is left by
                an exception.
        """
        if mode == "rb":
            return self.reader(checked_target(target))
        if mode == "wb":
            return cast("BinaryIO", _Outgoing(self, checked_target(target)))
        message = f"mode must be 'rb' or 'wb', got {mode!r}"
        raise BadArguments(message)

    def read(self, target: str) -> bytes:
        """What is in the file."""
        with self.open(target) as stream:
            return stream.read()

    def write(self, target: str, content: bytes) -> str:
        """Make ``content`` the file's content, whole or not at all. Returns its URL."""
        self.put(io.BytesIO(content), checked_target(target))
        return self.get_url(target)

    def checksum(self, target: str) -> str:
        """SHA-256 of the content, in hex."""
        with self.open(target) as stream:
            return sha256(stream)

    @abstractmethod
    def exists(self, target: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def delete(self, target: str) -> bool:
        """Remove the file. Returns whether it was there."""

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """All files below the folder ``prefix``, as targets, sorted."""

    @abstractmethod
    def get_url(self, target: str) -> str:
        """The file's address."""

    @abstractmethod
    def reader(self, target: str) -> BinaryIO:
        """The checked target, opened for reading."""

    @abstractmethod
    def put(self, stream: IO[bytes], target: str) -> None:
        """Write the rest of the stream to the checked target."""

    @abstractmethod
    def below(self, prefix: str) -> Storage:
        """The folder ``prefix`` as a storage of its own."""

    @abstractmethod
    def claim(self, folder: str, marker: str, content: bytes) -> bool:
        """Make the folder with the file ``marker`` in it, unless it is there. Returns whether it was made; of several
        that try at once, one makes it.
        """

    @abstractmethod
    def delete_folder(self, folder: str) -> None:
        """Remove the folder with all that is in it, if it is there."""

    def absent_folders(self, targets: Iterable[str]) -> Sequence[str]:
        """Folders that writing these targets would make, outermost first; ``""`` is the root. None where a folder is
        no thing of its own.
        """
        return ()

    def remove_folders(self, folders: Iterable[str]) -> None:  # noqa: B027  # where folders are no things, this is it
        """Remove those of these folders that are empty, innermost first."""


class _Outgoing(tempfile.SpooledTemporaryFile[bytes]):
    """A file that goes to its storage when it is closed."""

    def __init__(self, storage: Storage, target: str) -> None:
        super().__init__(SPOOL)
        self._storage: Storage | None = storage
        self._target = target

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._storage = None
        self.close()

    def close(self) -> None:
        """Send it, once."""
        storage, self._storage = self._storage, None
        try:
            if storage is not None:
                self.seek(0)
                storage.put(self, self._target)
        finally:
            super().close()


def open_storage(
    spec: str | os.PathLike[str] | int | Mapping[str, Any] | Storage,
    *,
    env: Mapping[str, str] | None = None,
    token: str = "",
) -> Storage:
    """Open a place for files. Nothing is made before the first write.

    Args:
        spec: a folder, an fsspec URL (``s3://bucket/folder``, ``memory://…``), an id from the workspace's
            ``storages.yaml``, or ``{"provider": …, "configuration": {…}}`` with the providers ``local`` and
            ``file_system`` (``location``), ``s3``, ``amazon_s3`` and ``minio`` (``bucket_name access_key secret_key
            region_name endpoint_url``, and ``prefix``), ``memory`` (``location``). A `Storage` is returned as it is.
        env: where ``${env:NAME}`` in a configuration is looked up; default ``os.environ``.
        token: marks the names under which files are kept while they are written to a local folder, so that what a
            killed process left is found again.

    Raises:
        BadArguments: the spec cannot be understood, or there is no storage with this id.
        MissingExtra: it needs the extra ``objects``.
    """
    if isinstance(spec, Storage):
        return spec
    from stepwell.pipeline._storage_spec import resolve

    return resolve(spec, os.environ if env is None else env, token)


def checked_target(target: str) -> str:
    """The target as it is used.

    Raises:
        BadArguments: it is absolute, empty, or leaves the root.
    """
    path = PurePosixPath(target)
    parts = path.parts
    if (
        not parts
        or path.is_absolute()
        or ".." in parts
        or "\\" in target
        or "\0" in target
        or "://" in target
        or (len(parts[0]) == 2 and parts[0][1] == ":")
    ):
        message = f"target {target!r} leaves the storage"
        raise BadArguments(message)
    return path.as_posix()


def checked_prefix(prefix: str) -> str:
    """As `checked_target`; ``""`` is the root."""
    return checked_target(prefix) if prefix.strip("/") else ""


def sha256(stream: IO[bytes]) -> str:
    """SHA-256 of the rest of the stream, in hex."""
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def file_checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a local file, in hex."""
    with Path(path).open("rb") as stream:
        return sha256(stream)


def write_whole(path: Path, stream: IO[bytes], token: str = "") -> None:
    """Write a local file so that it appears whole or not at all, and stays after a power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path, token)
    try:
        with part.open("wb") as out:
            while chunk := stream.read(CHUNK):
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def part_of(path: Path, token: str) -> Path:
    """Where a file is while it is being written. The same name again for the same token, so that a second try takes
    the place of what a killed process left.
    """
    digest = hashlib.sha256(path.name.encode()).hexdigest()[:16]
    return path.with_name(f".{digest}.{token or os.getpid()}.part")


def sync_folder(folder: Path) -> None:
    """Make names in it durable."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
