"""Values as files: the record keeps where the text lies, and a preview of it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from stepwell.durable._checks import check_callable, check_member, check_serdes
from stepwell.durable.preview import PreviewConfig, build_preview
from stepwell.durable.serdes import EXTENDED_TYPES_SERDES, SerDes, SerDesContext, deserialize, serialize
from stepwell.errors import PayloadError, SerDesError, ValidationError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["FileSystemPathEncoding", "FileSystemSerDes", "FileSystemSerDesConfig", "FileSystemSerDesMode"]

OVERFLOW_BYTES = 255 * 1024
"""Greatest text, in bytes of UTF-8, that OVERFLOW keeps in the record."""
LONGEST_PART = 200


class FileSystemSerDesMode(StrEnum):
    """When a file is written. ALWAYS; or OVERFLOW, only for texts above 255 KiB."""

    ALWAYS = "ALWAYS"
    OVERFLOW = "OVERFLOW"


class FileSystemPathEncoding(StrEnum):
    """How a run's ARN becomes the name of its folder. URI: percent-encoded, to be read by people. HASH: 32 digits."""

    URI = "URI"
    HASH = "HASH"


class FileSystemSerDesConfig(msgspec.Struct, frozen=True):
    """Settings of `FileSystemSerDes`.

    Attributes:
        storage_mode: when a file is written; default always.
        path_encoding: names of folders; default readable ones.
        generate_preview: what the record shows of a value in a file: a `PreviewConfig`, or a function of the value that
            gives something plain; default nothing.
        serdes: makes the text; default the library's format.

    Raises:
        ValidationError: a value is of another kind.
    """

    storage_mode: FileSystemSerDesMode = FileSystemSerDesMode.ALWAYS
    path_encoding: FileSystemPathEncoding = FileSystemPathEncoding.URI
    generate_preview: PreviewConfig | Callable[[Any], Any] | None = None
    serdes: SerDes[Any] | None = None

    def __post_init__(self) -> None:
        check_member("storage_mode", self.storage_mode, FileSystemSerDesMode)
        check_member("path_encoding", self.path_encoding, FileSystemPathEncoding)
        if not isinstance(self.generate_preview, PreviewConfig):
            check_callable("generate_preview", self.generate_preview)
        check_serdes("serdes", self.serdes)


class FileSystemSerDes(SerDes[T]):
    """Keeps values in files below ``base_path``, which every process that reads the run must see.

    The record holds ``{"file": path, "preview": …}``, or ``{"data": text}`` where no file was written. A file is
    written beside its place, made durable and moved there, all before the record is committed. Its name ends with a
    digest of its content: no writer, however late, changes what a record refers to; a crash before the record leaves a
    file that nobody refers to. The folder may be moved: files are looked for below the present ``base_path``.

    Secrets that the run has revealed are masked in files and previews.
    """

    def __init__(self, base_path: str | os.PathLike[str], config: FileSystemSerDesConfig | None = None) -> None:
        if config is not None and not isinstance(config, FileSystemSerDesConfig):
            raise ValidationError(f"config of FileSystemSerDes is a FileSystemSerDesConfig, not {config!r}")
        given: Any = base_path
        if not isinstance(given, str | os.PathLike) or not os.fspath(given):
            raise ValidationError(f"base_path of FileSystemSerDes is a folder, not {given!r}")
        self.base_path = Path(base_path).expanduser().absolute()
        self.config = config or FileSystemSerDesConfig()

    def serialize(self, value: T, serdes_context: SerDesContext | None = None) -> str | None:
        """Write the value's text where the config says. None where the inner serdes gives none.

        Raises:
            SerDesError: the text cannot be made, or the file cannot be written; the text names it.
        """
        about = serdes_context or SerDesContext()
        text = serialize(self.config.serdes, value, about.operation_id, about.durable_execution_arn)
        if text is None:
            return None
        text = self._masked(text)
        data = text.encode()
        if self.config.storage_mode is FileSystemSerDesMode.OVERFLOW and len(data) <= OVERFLOW_BYTES:
            return _json({"data": text})
        path = self._place(about, data)
        try:
            _write(path, data)
        except OSError as error:
            raise SerDesError(f"result: {path} cannot be written: {error.strerror or error}") from error
        envelope: dict[str, Any] = {"file": str(path)}
        if self.config.generate_preview is not None:
            envelope["preview"] = self._preview(value)
        return _json(envelope)

    def deserialize(self, data: str, serdes_context: SerDesContext | None = None) -> T:
        """The value, from the record or from its file.

        Raises:
            PayloadError: the file is missing, is not the one that was recorded, or the text is no record of this class.
        """
        about = serdes_context or SerDesContext()
        text = self._text(data, about)
        return deserialize(  # type: ignore[no-any-return]
            self.config.serdes or EXTENDED_TYPES_SERDES, text, about.operation_id, about.durable_execution_arn
        )

    def _masked(self, text: str) -> str:
        """Without the secrets that the run has revealed."""
        from stepwell.serde import current_redactor

        redactor = current_redactor.get()
        if redactor is None or not redactor.active:
            return text
        try:
            masked = redactor.redact_json(text)
        except ValueError:  # a serdes of another format
            masked = redactor.redact(text)
        if masked != text:
            warnings.warn("a secret in a value that is written to a file was masked", RuntimeWarning, stacklevel=2)
        return masked

    def _preview(self, value: Any) -> Any:
        make = self.config.generate_preview
        if isinstance(make, PreviewConfig):
            return build_preview(value, make)
        assert make is not None
        # Whatever the function gives, secrets are masked in it; it says itself how large it may be.
        return build_preview(make(value), PreviewConfig(max_preview_bytes=OVERFLOW_BYTES))

    def _place(self, about: SerDesContext, data: bytes) -> Path:
        arn = about.durable_execution_arn or "none"
        digest = blake2b(arn.encode(), digest_size=16).hexdigest()
        folder = digest if self.config.path_encoding is FileSystemPathEncoding.HASH else quote(arn, safe="")
        if len(folder) > LONGEST_PART:
            folder = f"{folder[: LONGEST_PART - 33]}-{digest}"
        name = quote(about.operation_id or "value", safe="")[:LONGEST_PART]
        return self.base_path / folder / f"{name}-{_digest(data)}.json"

    def _text(self, recorded: str, about: SerDesContext) -> str:
        try:
            envelope = msgspec.json.decode(recorded)
        except (msgspec.DecodeError, ValueError):
            envelope = None
        if isinstance(envelope, dict) and isinstance(envelope.get("data"), str):
            return str(envelope["data"])
        if not isinstance(envelope, dict) or not isinstance(envelope.get("file"), str):
            raise PayloadError(f"operation {about.operation_id}: not written by FileSystemSerDes: {recorded[:60]!r}")
        recorded_path = Path(envelope["file"])
        path = self.base_path / recorded_path.parent.name / recorded_path.name
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            raise PayloadError(f"the file of operation {about.operation_id} {reason}: {path}") from error
        if not path.stem.endswith(f"-{_digest(data)}"):
            raise PayloadError(f"the file of operation {about.operation_id} is not what was recorded: {path}")
        return data.decode()


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _json(envelope: dict[str, Any]) -> str:
    return msgspec.json.encode(envelope).decode()


def _write(path: Path, data: bytes) -> None:
    """Put a whole file in its place, durably. A reader sees all of it or nothing."""
    new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.urandom(8).hex()}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    for folder in (path.parent, path.parent.parent) if new else (path.parent,):
        _sync(folder)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
