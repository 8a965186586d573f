"""What a step's value becomes by being recorded."""

from __future__ import annotations

from typing import Any

from stepwell.errors import PayloadError, SerDesError
from stepwell.serde._reader import decode, loads
from stepwell.serde._writer import encode, plain_text


def roundtrip(value: object, *, place: str = "result") -> tuple[str, Any]:
    """`(encode(value), decode(encode(value)))`: the first run goes on with what every replay will get.

    Raises SerDesError, also for a value that can be written and not be read.
    """
    text = plain_text(value)
    if text is None:
        text = encode(value, place=place)
    else:
        try:
            return text, loads(text)
        except RecursionError:  # the caller is deep in calls; `decode` knows what to do
            pass
    try:
        return text, decode(text)
    except PayloadError as error:
        raise SerDesError(f"{place}: {error}") from error
