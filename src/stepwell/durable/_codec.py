"""The two ways to record a value: the library's format, or the user's serdes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.core import operation_id
from stepwell.durable._duration import Duration, duration_of_us, to_us
from stepwell.durable.serdes import deserialize, serialize
from stepwell.errors import PayloadError

if TYPE_CHECKING:
    from stepwell.durable.serdes import SerDes
    from stepwell.runtime._api import Codec

NO_VALUE = '{"$":"none"}'
"""What stands on record where a serdes gave None. A text of a serdes that starts like it has it put in front."""

# Settings may be part of a result or a state.
serde.register("duration", Duration, to_us, duration_of_us)


class _Default:
    """The library's format."""

    __slots__ = ()

    def encode(self, value: Any, place: str) -> str:
        return serde.encode(value, place=place)

    def decode(self, text: str, key: str) -> Any:
        return serde.decode(text, key=key)


class _Custom:
    """A user's serdes. Where it gives None, the value is None when it is read, and the serdes is not asked."""

    __slots__ = ("_arn", "_key", "_serdes")

    def __init__(self, user: SerDes[Any], arn: str, key: str) -> None:
        self._serdes = user
        self._arn = arn
        self._key = key

    def encode(self, value: Any, place: str) -> str:
        text = serialize(self._serdes, value, operation_id(self._key), self._arn)
        if text is None:
            return NO_VALUE
        return NO_VALUE + text if text.startswith(NO_VALUE) else text

    def decode(self, text: str, key: str) -> Any:
        if text.startswith(NO_VALUE):
            text = text[len(NO_VALUE) :]
            if not text:
                return None
        try:
            return deserialize(self._serdes, text, operation_id(key), self._arn)
        except PayloadError as error:
            if error.key is None:
                error.key = key
                error.args = (f"{key}: {error}",)
            raise


_DEFAULT = _Default()


def codec_for(user: SerDes[Any] | None, arn: str, key: str = "") -> Codec:
    """How the value of the operation ``key`` of the run ``arn`` is recorded. ``user`` None: the library's format."""
    return _DEFAULT if user is None else _Custom(user, arn, key)


def shown_text(text: str) -> str | None:
    """A recorded text as it is shown to people and in the history: None where a serdes gave none."""
    return (text[len(NO_VALUE) :] or None) if text.startswith(NO_VALUE) else text
