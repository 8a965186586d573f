"""How values become text for the record and come back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from stepwell.errors import PayloadError, RetryableSerDesError, SerDesError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = [
    "DEFAULT_JSON_SERDES",
    "EXTENDED_TYPES_SERDES",
    "ExtendedTypeSerDes",
    "JsonSerDes",
    "PassThroughSerDes",
    "SerDes",
    "SerDesContext",
    "deserialize",
    "serialize",
]


class SerDesContext(msgspec.Struct, frozen=True):
    """Which value is written or read: the id of its operation and the ARN of its run."""

    operation_id: str = ""
    durable_execution_arn: str = ""


class SerDes(ABC, Generic[T]):
    """A way to record values of type T.

    What the methods raise becomes a SerDesError with it as cause, which no strategy retries; a RetryableSerDesError
    stays what it is and is retried.
    """

    @abstractmethod
    def serialize(self, value: T, serdes_context: SerDesContext) -> str | None:
        """Text for the record. None: there is nothing to record, and the value is None when it is read."""

    @abstractmethod
    def deserialize(self, data: str, serdes_context: SerDesContext) -> T:
        """The value that ``serialize`` made ``data`` from; not called where it gave None."""


class PassThroughSerDes(SerDes[T]):
    """For values that are text, or None: recorded as they are."""

    def serialize(self, value: T, serdes_context: SerDesContext | None = None) -> str | None:
        """The value itself. Raises SerDesError unless it is a str or None."""
        if value is None or isinstance(value, str):
            return value
        raise SerDesError(f"result: {type(value).__name__} is no text; give another serdes=")

    def deserialize(self, data: str, serdes_context: SerDesContext | None = None) -> T:
        """The text itself."""
        return data  # type: ignore[return-value]


class JsonSerDes(SerDes[T]):
    """Plain JSON as the standard library writes it: tuples come back as lists, keys as texts."""

    def serialize(self, value: T, serdes_context: SerDesContext | None = None) -> str:
        """JSON text. Raises SerDesError for what JSON has no form for."""
        from json import dumps

        try:
            return dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise SerDesError(f"result: cannot be recorded as plain JSON: {error}") from error

    def deserialize(self, data: str, serdes_context: SerDesContext | None = None) -> T:
        """The value of JSON text. Raises PayloadError where it is none."""
        from json import loads

        try:
            return loads(data)  # type: ignore[no-any-return]
        except (TypeError, ValueError, RecursionError) as error:
            raise PayloadError(f"not JSON: {error}") from error


class ExtendedTypeSerDes(SerDes[T]):
    """The format used where no serdes is given: JSON, with tags where JSON would lose the type.

    Reads typed envelopes ``{"t": …, "v": …}`` too.
    """

    def serialize(self, value: T, serdes_context: SerDesContext | None = None) -> str:
        """Tagged JSON. Raises SerDesError for what cannot be recorded."""
        from stepwell.serde import encode

        content: Any = value
        if type(content) is dict and content.keys() == _ENVELOPE:
            # As plain JSON this dict would be taken for an envelope.
            pairs = ",".join(f'["{name}",{encode(item, place=f"result.{name}")}]' for name, item in content.items())
            return f'{{"$":"dict","v":[{pairs}]}}'
        return encode(value)

    def deserialize(self, data: str, serdes_context: SerDesContext | None = None) -> T:
        """The value. Raises PayloadError where the text is not in the format or a class is gone."""
        from stepwell.serde import decode

        if '"t"' in data and '"v"' in data:
            try:
                return _open_envelope(data)  # type: ignore[no-any-return]
            except PayloadError:
                pass
        return decode(data)  # type: ignore[no-any-return]


_ENVELOPE = frozenset(("t", "v"))


def _open_envelope(text: str) -> Any:
    from stepwell.serde import decode_envelope

    if '"br"' in text:
        node = msgspec.json.decode(text)
        if isinstance(node, dict) and node.get("t") == "br" and node.keys() == _ENVELOPE:
            from stepwell.durable.concurrency.models import BatchResult

            content = msgspec.json.encode({"t": "m", "v": node["v"]}).decode()
            return BatchResult.from_dict(decode_envelope(content))
    return decode_envelope(text)


DEFAULT_JSON_SERDES: SerDes[Any] = JsonSerDes()
"""Plain JSON."""
EXTENDED_TYPES_SERDES: SerDes[Any] = ExtendedTypeSerDes()
"""What is used where no serdes is given."""


def serialize(serdes: SerDes[T] | None, value: T, operation_id: str, durable_execution_arn: str) -> str | None:
    """The text that ``serdes`` (None: EXTENDED_TYPES_SERDES) makes of a value, or None where it gives none.

    Raises:
        RetryableSerDesError: it said so.
        SerDesError: it raised anything else, its cause; or gave neither text nor None.
    """
    chosen = EXTENDED_TYPES_SERDES if serdes is None else serdes
    try:
        text: Any = chosen.serialize(value, SerDesContext(operation_id, durable_execution_arn))
        if text is not None:
            if not isinstance(text, str):
                raise SerDesError(f"{_name(chosen)}.serialize returned {type(text).__name__}, not text")
            text.isascii() or text.encode()
    except (RetryableSerDesError, SerDesError):
        raise
    except Exception as error:
        raise SerDesError(f"{_name(chosen)}.serialize raised {type(error).__name__}: {error}") from error
    return text  # type: ignore[no-any-return]


def deserialize(serdes: SerDes[T] | None, data: str, operation_id: str, durable_execution_arn: str) -> T:
    """The value that ``serdes`` (None: EXTENDED_TYPES_SERDES) makes of a text.

    Raises:
        RetryableSerDesError: it said so.
        PayloadError: the text is not in its format.
        SerDesError: it raised anything else, its cause.
    """
    chosen = EXTENDED_TYPES_SERDES if serdes is None else serdes
    try:
        return chosen.deserialize(data, SerDesContext(operation_id, durable_execution_arn))
    except (RetryableSerDesError, PayloadError):
        raise
    except Exception as error:
        raise SerDesError(f"{_name(chosen)}.deserialize raised {type(error).__name__}: {error}") from error


def _name(serdes: object) -> str:
    return type(serdes).__qualname__
