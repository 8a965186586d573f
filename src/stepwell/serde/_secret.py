"""A text that never shows: P7."""

from __future__ import annotations

import os
from typing import Any, NoReturn, Self, TypeVar

from stepwell.errors import UsageError
from stepwell.serde._reader import Reader
from stepwell.serde._redactor import current_redactor
from stepwell.serde._tables import Node, reads, writes
from stepwell.serde._writer import Writer, tagged

_MASK = "***"
S = TypeVar("S", bound="Secret")


class Secret:
    """A text that prints as `***`. `.reveal()` gives it.

    `Secret.env("NAME")` and `Secret.file(path)` are references: recorded and pickled as such, read anew each time the
    text is asked for. `Secret("text")` holds the text itself and can be used inside one life only: it can neither be
    recorded nor pickled.
    """

    __slots__ = ("_kind", "_source")
    _kind: str
    _source: str

    def __init__(self, text: str) -> None:
        _fill(self, "literal", text)

    @classmethod
    def env(cls, name: str) -> Self:
        """The value of an environment variable, read when it is revealed."""
        return _fill(cls.__new__(cls), "env", name)

    @classmethod
    def file(cls, path: str | os.PathLike[str]) -> Self:
        """The content of a text file (UTF-8, without the line break at its end), read when it is revealed."""
        return _fill(cls.__new__(cls), "file", os.fspath(path))

    def reveal(self) -> str:
        """The text. From here on the current run's redactor masks it. Raises UsageError when it is not to be had."""
        text = self._resolve()
        redactor = current_redactor.get()
        if redactor is not None:
            redactor.feed(text)
        return text

    def _resolve(self) -> str:
        if self._kind == "literal":
            return self._source
        if self._kind == "env":
            value = os.environ.get(self._source)
            if value is None:
                raise UsageError(
                    f"environment variable {self._source} is not set; a secret refers to it",
                    hint=f"set {self._source} and run again",
                )
            return value
        try:
            with open(self._source, encoding="utf-8") as file:  # noqa: PTH123  pathlib is imported by nothing else here
                text = file.read()
        except OSError as error:
            raise UsageError(f"secret file {self._source} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageError(f"secret file {self._source} is not UTF-8 text") from None
        return text.removesuffix("\n").removesuffix("\r")

    def __str__(self) -> str:
        return _MASK

    def __repr__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __eq__(self, other: object) -> bool:
        """Equal are two of the same kind with the same text, variable or path; nothing is read for it."""
        if not isinstance(other, Secret):
            return NotImplemented
        return (self._kind, self._source) == (other._kind, other._source)

    def __hash__(self) -> int:
        return hash((self._kind, self._source))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._kind == "literal":
            raise TypeError("a literal Secret cannot be pickled; use Secret.env or Secret.file")
        return (Secret.env if self._kind == "env" else Secret.file), (self._source,)


def _fill(secret: S, kind: str, source: str) -> S:
    object.__setattr__(secret, "_kind", kind)
    object.__setattr__(secret, "_source", source)
    return secret


@writes(Secret)
def _write_secret(writer: Writer, value: Secret) -> object:
    kind, source = value._kind, value._source
    if kind == "literal":
        raise writer.refused(value, 'use Secret.env("NAME") or Secret.file(path): a reference can be recorded')
    return tagged("secret", {kind: writer.child(kind, source)})


@reads("secret")
def _read_secret(reader: Reader, node: Node) -> Secret:
    recorded = node["v"]
    if "env" in recorded:
        return Secret.env(reader.value(recorded["env"]))
    return Secret.file(reader.value(recorded["file"]))
