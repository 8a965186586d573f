"""The typed envelope `{"t": tag, "v": …}` of the seed's ExtendedTypeSerDes, read only."""

from __future__ import annotations

import datetime as dt
import uuid
from base64 import b64decode
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from stepwell.errors import PayloadError
from stepwell.serde._reader import loads


def decode_envelope(text: str) -> Any:
    """The value of a typed envelope.

    Tags: `n` None, `s` str, `i` int, `f` float, `b` bool, `B` bytes in base64, `d` Decimal, `u` UUID, `dt` datetime,
    `D` date, `t` tuple, `l` list, `m` dict with str keys (the last three hold envelopes). Raises PayloadError for
    anything else.
    """
    try:
        return _open(loads(text))
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(f"not a typed envelope: {type(error).__name__}: {error}") from error


def _open(node: Any) -> Any:
    if not isinstance(node, dict) or node.keys() != {"t", "v"}:
        raise PayloadError('not a typed envelope: expected {"t": …, "v": …}')
    read = _TAGS.get(node["t"])
    if read is None:
        raise PayloadError(f"not a typed envelope: unknown tag {node['t']!r}")
    return read(node["v"])


def _exactly(*types: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) not in types:
            raise PayloadError(f"not a typed envelope: {type(value).__name__} where {types[0].__name__} is expected")
        return types[0](value) if value is not None else None

    return read


_TAGS: dict[object, Callable[[Any], Any]] = {
    "n": lambda _: None,
    "s": _exactly(str),
    "i": _exactly(int),
    "f": _exactly(float, int, str),  # str: "nan", "inf"
    "b": _exactly(bool),
    "B": b64decode,
    "d": Decimal,
    "u": uuid.UUID,
    "dt": dt.datetime.fromisoformat,
    "D": dt.date.fromisoformat,
    "t": lambda value: tuple(map(_open, value)),
    "l": lambda value: list(map(_open, value)),
    "m": lambda value: {name: _open(item) for name, item in value.items()},
}
