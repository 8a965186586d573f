"""The codec of values that the engine itself makes."""

from __future__ import annotations

from typing import Any

from stepwell.serde import decode, encode


class PlainCodec:
    """The default format (durable.md §13)."""

    def encode(self, value: Any, place: str) -> str:
        """Text for the record. Raises `SerDesError`."""
        return encode(value, place=place)

    def decode(self, text: str, key: str) -> Any:
        """The value again. Raises `PayloadError`."""
        return decode(text, key=key)


PLAIN = PlainCodec()
